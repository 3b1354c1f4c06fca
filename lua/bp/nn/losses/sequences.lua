--- The loss of label sequences whose place in time is not known.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

--- Adds it to nn.loss.
---@param define function see nn.loss
return function(define)
  define("ctc", "ctc", "Connectionist temporal classification (Graves et al. 2006): targets [batch][longest] are classes without their "
    .. "places, predictions [batch][time][classes] logits.", {
      { "blank", "int", default = 1, named = true,
        help = "the class that stands for nothing: the first, as in PyTorch and Keras; -1: the last" },
      { "input_lengths", "tensor|table", named = true, help = "frames of each sequence; default all" },
      { "label_lengths", "tensor|table", named = true,
        help = "classes of each target; default: up to the first blank, or number below 1" },
      { "zero_infinity", "boolean", default = false, named = true,
        help = "a sequence too short for its target counts nothing instead of being an error" },
    }, function(prediction, target, o)
      if target.dtype == "f32" or target.dtype == "f64" or target.dtype == "bool" then
        core.error(("loss ctc: the labels are %s %s; expected rows of whole numbers [batch][longest]: y:to('i64')")
          :format(target.dtype, shapes.text(target:shape())))
      end
      local function lengths(value)
        if value == nil or core.is_tensor(value) then return value end
        return core.pause(core.tensor, value, { dtype = "i64" })
      end
      return core.ops.ctc(prediction, target, lengths(o.input_lengths), lengths(o.label_lengths),
        { blank = o.blank, zero_infinity = o.zero_infinity }), target
    end)
end
