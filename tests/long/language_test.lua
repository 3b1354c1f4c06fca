--- scripts/language_rnn.lua tells the language of at least that share of the words it has not seen; one in five would be chance.
local FLOOR <const> = 0.86
local bplua = arg[-1]

local out = assert(io.popen(("%s scripts/language_rnn.lua 2>&1"):format(bplua))):read "a"
local accuracy = tonumber(out:match "test: {loss = [%d.]+, accuracy = ([%d.]+)}")
os.remove "language.safetensors"
local good = accuracy ~= nil and accuracy >= FLOOR
print(accuracy and ("accuracy on unseen words: %.4f, at least %.2f wanted"):format(accuracy, FLOOR) or out)
print(good and "1 passed, 0 failed" or "0 passed, 1 failed")
os.exit(good)
