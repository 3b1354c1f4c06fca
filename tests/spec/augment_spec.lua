--- Augmentation: what each stage does, one resampling for neighbours, the same draws for the same seed.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local augment, near, fails = bp.augment, check.near, check.fails

describe("augment", function()
  local x
  before_each(function()
    bp.seed(8)
    x = bp.rand(6, 9, 7, 2)
  end)
  local function only(stage, o)
    o = o or {}
    o[1] = stage
    return augment.compose(o)
  end

  it("flips", function()
    near(only(augment.flip{ p = 1 })(x), bp.ops.flip(x, { axes = { 3 } }), 1e-6)
    near(only(augment.flip{ horizontal = false, vertical = true, p = 1 })(x), bp.ops.flip(x, { axes = { 2 } }), 1e-6)
    assert.is_true(check.equal(only(augment.flip{ p = 0 })(x), x))
    local flipped = bp.ops.flip(x, { axes = { 3 } })
    local y, count = only(augment.flip{ p = 0.5, horizontal = true })(bp.concat{ x, x, x, x, x, x }), 0
    for i = 1, 36 do
      local k = (i - 1) % 6 + 1
      local kept, turned = check.difference(y[i], x[k]) < 1e-6, check.difference(y[i], flipped[k]) < 1e-6
      assert.is_true(kept or turned)
      count = count + (turned and 1 or 0)
    end
    assert.is_true(count > 6 and count < 30, count)
  end)

  it("turns by whole quarters without blurring", function()
    local square = bp.rand(2, 8, 8, 1)
    local turned = only(augment.rotate{ degrees = { 90, 90 } })(square)
    near(turned, bp.ops.flip(square:permute{ 1, 3, 2, 4 }, { axes = { 2 } }), 1e-5)
    near(only(augment.rotate{ degrees = { 360, 360 } })(x), x, 1e-4)
  end)

  it("moves by whole pixels, positive to the right and down", function()
    local y = only(augment.translate{ x = { 2 / 7, 2 / 7 }, y = { 1 / 9, 1 / 9 } }, { fill = "constant", value = -1 })(x)
    near(y[{ {}, { 2, 9 }, { 3, 7 } }], x[{ {}, { 1, 8 }, { 1, 5 } }], 1e-5)
    near(y[{ {}, { 1, 1 } }], bp.full({ 6, 1, 7, 2 }, -1), 1e-5)
  end)

  it("scales around the centre", function()
    local picture = bp.zeros(1, 9, 9, 1)
    picture[{ 1, { 4, 6 }, { 4, 6 }, 1 }] = 1
    local bigger = only(augment.scale{ { 2, 2 } })(picture)
    assert.near(25, bigger:sum():item(), 12)
    assert.is_true(bigger:sum():item() > picture:sum():item())
    near(bigger[{ 1, 5, 5 }], bp.ones(1), 1e-6)
    near(only(augment.scale{ { 1, 1 } })(picture), picture, 1e-6)
  end)

  it("makes one map of neighbouring stages: there and back again is nothing", function()
    local aug = augment.compose{ augment.rotate{ degrees = { 30, 30 } }, augment.scale{ { 2, 2 } },
      augment.scale{ { 0.5, 0.5 } }, augment.rotate{ degrees = { -30, -30 } } }
    near(aug(x), x, 1e-5)
    local order = augment.compose{ augment.translate{ x = { 1 / 7, 1 / 7 } }, augment.flip{ p = 1 }, fill = "nearest" }
    local moved = only(augment.translate{ x = { 1 / 7, 1 / 7 } }, { fill = "nearest" })(x)
    near(order(x), bp.ops.flip(moved, { axes = { 3 } }), 1e-5)
  end)

  it("crops at random, in the middle in eval()", function()
    local aug = only(augment.crop{ 5, 3 })
    local y = aug(x)
    assert.same({ 6, 5, 3, 2 }, y:shape())
    for i = 1, 6 do
      local found = false
      for top = 1, 5 do
        for left = 1, 5 do found = found or check.equal(y[i], x[{ i, { top, top + 4 }, { left, left + 2 } }]:contiguous()) end
      end
      assert.is_true(found)
    end
    assert.is_true(check.equal(aug:eval()(x), x[{ {}, { 3, 7 }, { 3, 5 } }]:contiguous()))
    fails("augment.crop: the window is [10][10], the images are [9][7]", only(augment.crop(10)), x)
  end)

  it("changes brightness, contrast and adds noise, image by image", function()
    near(only(augment.brightness{ { 0.2, 0.2 } })(x), x + 0.2, 1e-6)
    local mean = x:mean{ axes = { 2, 3, 4 }, keepdims = true }
    near(only(augment.contrast{ { 2, 2 } })(x), (x - mean) * 2 + mean, 1e-5)
    local large = bp.zeros(2, 100, 100, 1)
    local noisy = only(augment.noise(0.1))(large)
    assert.near(0.1, noisy:square():mean():sqrt():item(), 0.005)
    local some = only(augment.brightness{ 0.5, p = 0.5 })(bp.zeros(200, 2, 2, 1))
    local untouched = some[{ {}, 1, 1, 1 }]:eq(0):sum():item()
    assert.is_true(untouched > 70 and untouched < 130, untouched)
  end)

  it("keeps bytes bytes, in range, with amounts of 255", function()
    local bytes = bp.randint(0, 255, { 4, 6, 6, 3 }, { dtype = "u8" })
    local y = only(augment.brightness{ { 0.2, 0.2 } })(bytes)
    assert.equal("u8", y.dtype)
    near(y:to "f32", (bytes:to "f32" + 51):clamp{ max = 255 }, 1e-6)
    assert.equal("u8", augment.compose{ augment.rotate(10), augment.noise(0.1) }(bytes).dtype)
  end)

  it("draws the same for the same seed, new for every batch, and from a stream of its own", function()
    local function made(seed)
      return augment.compose{ seed = seed, augment.rotate(20), augment.scale(0.2), augment.noise(0.05), augment.flip() }
    end
    local a, b, c = made(3), made(3), made(4)
    local first = a(x)
    bp.randn(10)
    assert.is_true(check.equal(first, b(x)))
    assert.is_false(check.equal(first, c(x)))
    local second = a(x)
    assert.is_false(check.equal(first, second))
    assert.is_true(check.equal(second, b(x)))
    bp.seed(1)
    local free = made()
    local one = free(x)
    bp.seed(1)
    assert.is_true(check.equal(one, made()(x)))
    near(a:eval()(x), x, 0)
  end)

  it("hands y through, so that fit and map take it", function()
    local aug = only(augment.flip())
    local a, b = aug(x, 7)
    assert.same({ 6, 9, 7, 2 }, a:shape())
    assert.equal(7, b)
    local set = bp.data.tensors{ x = x, y = bp.ones(6) }:map(only(augment.flip{ p = 1 }))
    for batch in set:batches{ 6 } do near(batch.x, bp.ops.flip(x, { axes = { 3 } }), 1e-6) end
  end)

  it("takes functions as stages", function()
    near(augment.compose{ function(t) return t * 2 end, augment.flip{ p = 1 } }(x), bp.ops.flip(x, { axes = { 3 } }) * 2, 1e-6)
  end)

  it("refuses what it cannot use", function()
    fails("augment: the images are [9][7][2]; expected [batch][height][width][channels]", only(augment.flip()), x[1])
    fails("augment: the images are i64; expected u8, f32 or f64", only(augment.flip()), bp.ones({ 1, 2, 2, 1 }, { dtype = "i64" }))
    fails("augment.compose: stage 1 is a number (3)", augment.compose, { 3 })
    fails("augment.compose: unknown option 'fil' (did you mean 'fill'?)", augment.compose, { fil = "reflect" })
    fails("augment.rotate: option 'degrees' is missing", augment.rotate)
    fails("augment.rotate: unknown option 'degree' (did you mean 'degrees'?)", augment.rotate, { degree = 3 })
  end)

  it("writes a sheet that reads back", function()
    local folder = shell.folder()
    local path = folder .. "/sheet.png"
    local bytes = bp.randint(0, 255, { 5, 4, 6, 3 }, { dtype = "u8" })
    assert(augment.sheet(path, bytes, { columns = 3, gap = 1 }))
    local page = assert(require("bp.core").image_load(path))
    assert.same({ 2 * 5 + 1, 3 * 7 + 1, 3 }, page:shape())
    assert.is_true(check.equal(page[{ { 2, 5 }, { 9, 14 } }]:contiguous(), bytes[2]:contiguous()))
    assert.is_true(check.equal(page[{ { 7, 10 }, { 2, 7 } }]:contiguous(), bytes[4]:contiguous()))
    local ok, message = augment.sheet("/nowhere/at/all.png", bytes)
    assert.is_nil(ok)
    assert.truthy(message:find("/nowhere/at/all.png", 1, true))
    shell.remove(folder)
  end)
end)
