// COCO's compressed run lengths: runs of background and foreground in turn, down the columns, left to right.

/** The run lengths of a compressed text, as COCO's masks have them: each after the second is relative to the one two before. */
export function runsOf(counts) {
  const runs = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let bits = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << bits;
      bits += 5;
    } while (code & 32);
    if (code & 16 && bits < 32) value |= -1 << bits;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/** Whether pixel (x, y) of a mask `height` pixels high lies in it. */
export function isInside(runs, height, x, y) {
  let left = x * height + y;
  for (let index = 0; index < runs.length; index++) {
    left -= runs[index];
    if (left < 0) return index % 2 === 1;
  }
  return false;
}

/**
 * Set `value` where a mask is, in `target`: rows of `width` values, one for each `step`-th pixel of each `step`-th row.
 * @returns {[number, number, number, number]} left, top, right, bottom of what was set, the last two exclusive; in
 *     pixels of `target`. All zeros for an empty mask.
 */
export function drawRuns(runs, height, target, width, value, step = 1) {
  let at = 0;
  let [left, top, right, bottom] = [width, target.length / width, 0, 0];
  for (let index = 0; index < runs.length; index++) {
    const end = at + runs[index];
    if (index % 2 === 1) {
      while (at < end) {
        const x = Math.floor(at / height);
        const columnEnd = Math.min(end, (x + 1) * height);
        if (x % step === 0) {
          const column = x / step;
          const y0 = Math.ceil((at - x * height) / step);
          const y1 = Math.ceil((columnEnd - x * height) / step);
          for (let place = y0 * width + column; place < y1 * width + column; place += width) target[place] = value;
          if (y1 > y0) {
            left = Math.min(left, column);
            right = Math.max(right, column + 1);
            top = Math.min(top, y0);
            bottom = Math.max(bottom, y1);
          }
        }
        at = columnEnd;
      }
    }
    at = end;
  }
  return right > left ? [left, top, right, bottom] : [0, 0, 0, 0];
}

/** The compressed text of a mask: `pixels`, rows of `width`, 0 where it is not. The inverse of `runsOf` and `drawRuns`. */
export function encodeMask(pixels, width, height) {
  const runs = [];
  let isOn = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const here = pixels[y * width + x] ? 1 : 0;
      if (here !== isOn) {
        runs.push(length);
        length = 0;
        isOn = here;
      }
      length += 1;
    }
  }
  runs.push(length);
  return runs.map((run, index) => compressed(index > 2 ? run - runs[index - 2] : run)).join("");
}

function compressed(number) {
  let text = "";
  let rest = number;
  for (;;) {
    const code = rest & 31;
    rest >>= 5;
    const isLast = code & 16 ? rest === -1 : rest === 0;
    text += String.fromCharCode(48 + (isLast ? code : code | 32));
    if (isLast) return text;
  }
}
