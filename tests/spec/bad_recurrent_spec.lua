--- Misuse of recurrent layers, embeddings and what goes with them: each raises an error that says what was found and how to mend it.
local bp = require "bp"
local bad = require "support.bad"
local nn, ops = bp.nn, bp.ops

local x = bp.ones(2, 3, 4)
local ids = bp.tensor({ { 1, 2, 3 }, { 3, 2, 1 } }, { dtype = "i64" })
local function lengths(...) return bp.tensor({ ... }, { dtype = "i64" }) end

describe("an embedding refuses", function()
  bad.cases{
    { "no vocabulary", function() nn.embedding{} end, "embedding: option 'vocab' is missing", "how many ids there are" },
    { "no width", function() nn.embedding(10) end, "option 'dim' is missing", "length of a vector" },
    { "a padding index outside", function() nn.embedding{ 10, 4, padding_index = 11 } end,
      "padding_index 11 is no id", "expected 1 to 10" },
    { "an id outside", function() nn.embedding{ 2, 4 }(ids) end, "id 3 in row 3 lies outside 1..2", "count from 1" },
    { "id 0", function() nn.embedding{ 9, 4 }(ids - 1) end, "id 0 in row 1 lies outside 1..9", "count from 1" },
    { "floats as ids", function() nn.embedding{ 9, 4 }(x) end, "'ids' holds positions", "cast it to i64 first" },
    { "a mask as ids", function() nn.embedding{ 9, 4 }(ids:gt(1)) end, "'ids' is bool", "positions of rows are integers" },
    { "a table", function() nn.embedding{ 9, 4 }({ 1, 2 }) end, "the input is a table", "expected a tensor" },
    { "weights of one dimension", function() ops.embedding(ids, bp.ones(3)) end, "embedding", "[vocab][dim]" },
    { "padding outside the weights", function() ops.embedding(ids, bp.ones(3, 2), { padding_index = 4 }) end,
      "padding_index is 4", "1 to 3" },
  }
end)

describe("a recurrent layer refuses", function()
  bad.cases{
    { "no units", function() nn.lstm{} end, "lstm: option 'units' is missing", "size of the state" },
    { "0 units", function() nn.gru(0) end, "option 'units' is a number (0)", "at least 1" },
    { "an unknown option", function() nn.lstm{ 4, return_sequence = true } end, "unknown option 'return_sequence'",
      "did you mean 'return_sequences'?" },
    { "an unknown activation", function() nn.simple_rnn{ 4, activation = "tahn" } end,
      "unknown activation 'tahn'", "did you mean 'tanh'?" },
    { "an unknown merge", function() nn.gru{ 4, bidirectional = true, merge = "cat" } end, "option 'merge'", 'one of "concat"' },
    { "two directions twice", function() nn.gru{ 4, bidirectional = true, go_backwards = true } end, "go_backwards and bidirectional",
      "expected one of them" },
    { "two dimensions", function() nn.lstm(4)(bp.ones(3, 4)) end, "[3][4]", "[batch][time][features]" },
    { "another width", function()
      local layer = nn.lstm(4)
      layer(x)
      layer(bp.ones(2, 3, 5))
    end, "x is [2x3x5] and w is [4x16]", "w must be [5][16]" },
    { "lengths beyond the steps", function() nn.gru(4)(x, { lengths = lengths(3, 4) }) end, "the length of sample 2 is 4",
      "0 to 3, the number of steps, is expected" },
    { "negative lengths", function() nn.simple_rnn(4)(x, { lengths = lengths(-1, 3) }) end, "the length of sample 1 is -1", "0 to 3" },
    { "lengths of another batch", function() nn.lstm(4)(x, { lengths = lengths(1, 2, 3) }) end, "'lengths'", "[2]" },
    { "lengths with a fraction", function() nn.lstm(4)(x, { lengths = bp.ones(2) }) end, "'lengths' is f32", "whole numbers" },
    { "a tensor as second value", function() nn.lstm(4)(x, lengths(1, 2)) end, "the second value is a tensor",
      "rnn(x, { lengths =, initial_state = })" },
    { "one state of two", function() nn.lstm(4)(x, { initial_state = bp.zeros(2, 4) }) end, "the initial state has 1 tensors",
      "expected { h, c }" },
    { "a state of another size", function() nn.gru(4)(x, { initial_state = bp.zeros(2, 5) }) end, "'h0'", "[2x4]" },
    { "one state for a stack", function() nn.gru{ 4, num_layers = 2 }(x, { initial_state = { bp.zeros(2, 4) } }) end,
      "the initial state is for 1", "expected a list of 2 states" },
    { "another batch while it keeps a state", function()
      local layer = nn.gru{ 4, stateful = true }
      layer(x)
      layer(bp.ones(5, 3, 4))
    end, "keeps the state of 2 samples, but the batch has 5", "call reset_states()" },
    { "weights of another layer", function() ops.lstm(x, bp.ones(4, 12), bp.ones(4, 16)) end,
      "w is [4x12]", "for 4 units w must be [4][16]" },
    { "state weights of another gate count", function() ops.gru(x, bp.ones(4, 9), bp.ones(3, 12)) end, "'u' is [3x12]",
      "one block of columns for each of the 3 gates" },
    { "a second derivative of the fused op", function()
      local layer = nn.gru{ 4, 3 }
      bp.grad(function(a) return bp.grad(function(b) return layer(b):sum() end)(a):sum() end)(x)
    end, "its gradient has no gradient", "fused = false" },
    { "half a state in a cell", function() nn.lstm_cell(3)(bp.ones(2, 4), bp.zeros(2, 3)) end,
      "one state was given", "h, c = cell(x, h, c)" },
  }
end)

describe("wrappers of sequences refuse", function()
  bad.cases{
    { "two directions of a dense", function() nn.bidirectional(nn.dense(3)) end,
      "the layer is dense", "expected nn.simple_rnn, nn.gru or nn.lstm" },
    { "two directions of nothing", function() nn.bidirectional{} end, "option 'layer' is missing", "options hold for both" },
    { "two directions of two", function() nn.bidirectional(nn.gru{ 3, bidirectional = true }) end, "has a direction already",
      "without bidirectional" },
    { "two directions with a kept state", function() nn.bidirectional(nn.gru{ 3, stateful = true }) end, "the layer is stateful",
      "nothing to go on from" },
    { "a number over time", function() nn.time_distributed(3) end, "the layer is a number (3)", "expected a layer" },
    { "time over rows", function() nn.time_distributed(nn.dense(3))(bp.ones(2, 4)) end, "[2][4]", "[batch][time][features]" },
    { "a mask over rows", function() nn.masking()(bp.ones(2, 4)) end, "the input is [2][4]", "[batch][time][features]" },
    { "no repetition", function() nn.repeat_vector(0) end, "option 'n' is a number (0)", "at least 1" },
    { "repeating sequences", function() nn.repeat_vector(2)(x) end, "the input is [2][3][4]", "[batch][features]" },
  }
end)
