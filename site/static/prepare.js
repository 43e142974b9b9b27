// A picture of a digit as MNIST's makers prepared theirs: the same steps as study/digit.py.

const BOX = 20, SIDE = 28, LEAST_CONTRAST = 0.1;
export const WORKING_SIDE = 400, MOST_PIXELS = 50_000_000;

export class PictureError extends Error {}

const sum = (values) => values.reduce((a, b) => a + b, 0);

function roundHalfEven(x) {
  const low = Math.floor(x);
  return x - low === 0.5 && low % 2 === 0 ? low : Math.round(x);
}

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Canvas pixels (RGBA bytes) as greys in 0..1, 1 being white; transparent ones become the background. */
export function grey(rgba) {
  const out = Float64Array.from({ length: rgba.length / 4 }, (_, i) =>
    (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]) / 255);
  const alpha = out.map((_, i) => rgba[4 * i + 3] / 255);
  const fill = sum(out.map((value, i) => value * alpha[i])) > 0.5 * sum(alpha) ? 0 : 1;
  return out.map((value, i) => value * alpha[i] + fill * (1 - alpha[i]));
}

/** The mean over a square of `size` pixels (odd) around each, the picture mirrored at its borders. */
function around(values, height, width, size) {
  const half = (size - 1) / 2;
  const sweep = (from, lines, line, length, step) => {
    const to = new Float64Array(from.length);
    const at = (k) => { const m = (k + 8 * length) % (2 * length); return m < length ? m : 2 * length - 1 - m; };
    for (let start = 0; start < lines * line; start += line) {
      let total = 0;
      for (let k = -half; k <= half; k++) total += from[start + at(k) * step];
      for (let k = 0; k < length; k++) {
        to[start + k * step] = total / size;
        total += from[start + at(k + half + 1) * step] - from[start + at(k - half) * step];
      }
    }
    return to;
  };
  return sweep(sweep(values, width, 1, height, width), height, width, width, 1);
}

/** The mask grown by so many pixels along both axes, or shrunk; beyond the picture there is none. */
function spread(mask, height, width, steps, grow = true) {
  for (; steps > 0; steps--)
    mask = mask.map((value, i, old) => {
      const y = Math.floor(i / width), x = i % width;
      const next = [y > 0 && old[i - width], y < height - 1 && old[i + width], x > 0 && old[i - 1], x < width - 1 && old[i + 1]];
      return grow ? value || next.some(Boolean) : value && next.every(Boolean);
    });
  return mask;
}

/** [start, end] of every run of true values; gaps shorter than `gap` are closed. */
function runs(line, gap = 1) {
  const found = [];
  line.forEach((value, k) => {
    if (value && found.length && k - found.at(-1)[1] < gap) found.at(-1)[1] = k + 1;
    else if (value) found.push([k, k + 1]);
  });
  return found;
}

/** The mask without lines of ruled or squared paper: thin, and across the whole picture. */
function withoutLines(mask, height, width) {
  const kept = mask.slice(), thick = Math.floor(Math.min(height, width) / 40) + 1;
  let widest = 0;
  for (const [lines, line, length, step] of [[height, width, width, 1], [width, 1, height, width]]) {
    const places = (n) => Array.from({ length }, (_, k) => n * line + k * step);
    const full = Array.from({ length: lines }, (_, n) => places(n).filter((i) => mask[i]).length > 0.9 * length);
    for (const [start, end] of runs(full))
      if (end - start < thick) {
        widest = Math.max(widest, end - start);
        for (let n = start; n < end; n++) for (const i of places(n)) kept[i] = 0;
      }
  }
  if (!kept.some(Boolean) || kept.every((value, i) => value === mask[i])) return mask;
  const steps = (widest >> 1) + 1;
  return spread(spread(kept, height, width, steps), height, width, steps, false).map((value, i) => value || kept[i]);
}

/** [start, end] of all true values of a line together; [-1, 0] if there is none. */
const extent = (line) => [line.indexOf(true), line.lastIndexOf(true) + 1];

function digitMask(ink, mask, height, width, reach) {
  const labels = new Int32Array(mask.length), boxes = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const box = { label: boxes.length + 1, area: 0, peak: 0, left: width, right: 0, top: height, bottom: 0 };
    const stack = [start];
    labels[start] = box.label;
    while (stack.length) {
      const i = stack.pop(), y = Math.floor(i / width), x = i % width;
      box.area++; box.peak = Math.max(box.peak, ink[i]);
      box.left = Math.min(box.left, x); box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y); box.bottom = Math.max(box.bottom, y + 1);
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++)
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const j = v * width + u;
          if (mask[j] && !labels[j]) { labels[j] = box.label; stack.push(j); }
        }
    }
    boxes.push(box);
  }
  const inner = boxes.filter((box) => box.peak > 0.5 && box.bottom - box.top < height && box.right - box.left < width);
  const some = inner.length ? inner : boxes, largest = Math.max(...some.map((box) => box.area));
  const wanted = new Set(some.filter((box) => box.area >= 0.03 * largest).map((box) => box.label));
  const strokes = Uint8Array.from(labels, (label) => +wanted.has(label));
  const rows = (x0, x1) => Array.from({ length: height }, (_, y) => strokes.subarray(y * width + x0, y * width + x1).some(Boolean));
  const columns = Array.from({ length: width }, (_, x) => rows(x, x + 1).some(Boolean));
  const beside = runs(columns).map(([start, end]) => rows(start, end)).map(extent);
  const above = runs(rows(0, width), Math.floor(height / 16) + 1);
  for (const parts of [beside, above]) {
    const heights = parts.map(([start, end]) => end - start);
    const digits = heights.filter((each) => each > 0.6 * Math.max(...heights)).length;
    if (digits > 1) throw new PictureError(`the picture shows ${digits} digits; keep only one`);
  }
  return spread(strokes, height, width, reach);
}

function inkOf(values, height, width) {
  const most = (array) => array.reduce((a, b) => Math.max(a, b), -Infinity);
  const inverted = values.map((value) => 1 - value), dark = median(values) < (most(values) + 1 - most(inverted)) / 2;
  const grey = dark ? inverted : values, darkest = 1 - most(dark ? values : inverted);
  const side = Math.min(height, width), reach = Math.max(1, Math.floor(Math.max(height, width) / 50));
  const blurred = (array) => around(array, height, width, Math.max(15, Math.floor(side / 4)) | 1);
  const mean = blurred(grey), square = blurred(grey.map((value) => value ** 2));
  const std = square.map((value, i) => Math.sqrt(Math.max(value - mean[i] ** 2, 0))), largest = Math.max(most(std), 1e-9);
  const mask = Uint8Array.from(grey, (value, i) => +(value <= mean[i] - (1 - std[i] / largest) * (mean[i] - darkest) / 2 + 1e-6));
  const strokes = withoutLines(mask, height, width), removed = mask.map((value, i) => +(value && !strokes[i]));
  const lines = spread(removed, height, width, 1).map((value, i) => +(value && !strokes[i]));
  const paper = Float64Array.from(spread(strokes, height, width, reach), (value, i) => +!(value || lines[i])), share = blurred(paper);
  const ink = blurred(grey.map((value, i) => value * paper[i])).map((value, i) => value / Math.max(share[i], 1e-9) - grey[i]);
  const outside = mask.some((value) => !value) ? ink.filter((_, i) => !mask[i]) : ink;
  const noise = 1.4826 * median(outside.map(Math.abs)), top = most(ink.filter((_, i) => strokes[i]));
  const step = Math.max(1, Math.floor(side / 25));
  const steepest = most(grey.map((value, i) => Math.max(i >= step * width ? Math.abs(value - grey[i - step * width]) : 0,
    i % width >= step ? Math.abs(value - grey[i - step]) : 0)));
  if (top < Math.max(LEAST_CONTRAST, 6 * noise) || steepest < top / 2)
    throw new PictureError("the picture is empty: nothing stands out from its background");
  const amounts = ink.map((value, i) => (lines[i] ? 0 : Math.min(Math.max((value - 4 * noise) / (top - 4 * noise), 0), 1)));
  const digit = digitMask(amounts, strokes.map((value, i) => +(value && amounts[i] > 0.2)), height, width, reach);
  return amounts.map((value, i) => (digit[i] ? value : 0));
}

/** For each place after resizing the first place before that counts, and the weights from there on. */
function resampling(before, after) {
  const ratio = before / after, wide = Math.max(ratio, 1);
  return Array.from({ length: after }, (_, k) => {
    const centre = (k + 0.5) * ratio - 0.5, weights = [];
    const first = Math.max(0, Math.ceil(centre - 2 * wide)), last = Math.min(before - 1, Math.floor(centre + 2 * wide));
    for (let i = first; i <= last; i++) {
      const x = Math.abs(centre - i) / wide;
      weights.push(x < 1 ? 1.5 * x ** 3 - 2.5 * x ** 2 + 1 : -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2);
    }
    const total = sum(weights);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

const weighted = ({ first, weights }, values) => sum(weights.map((weight, i) => weight * values[first + i]));

/** Rows of values resized, as Pillow's bicubic filter does it. */
function resized(rows, height, width) {
  const columns = resampling(rows[0].length, width).map((column) => rows.map((row) => weighted(column, row)));
  return resampling(rows.length, height).map((row) => columns.map((column) => weighted(row, column)));
}

const inRows = (values, height, width) => Array.from({ length: height }, (_, y) => values.subarray(y * width, (y + 1) * width));

function crop(ink, height, width) {
  const rows = inRows(ink, height, width);
  const [top, bottom] = extent(rows.map((row) => row.some(Boolean)));
  const [left, right] = extent(Array.from({ length: width }, (_, x) => rows.some((row) => row[x])));
  return rows.slice(top, bottom).map((row) => row.subarray(left, right));
}

/** [28 * 28] bytes, ink 255 on 0, from greys [height * width] in 0..1. */
export function prepare(values, height, width) {
  const smaller = Math.min(1, WORKING_SIDE / Math.max(height, width));
  const [h, w] = [height, width].map((side) => Math.max(1, roundHalfEven(side * smaller)));
  const greys = smaller < 1 ? Float64Array.from(resized(inRows(values, height, width), h, w).flat(), (v) => Math.round(255 * Math.min(Math.max(v, 0), 1)) / 255) : values;
  const rows = crop(inkOf(greys, h, w), h, w);
  const sides = [rows.length, rows[0].length], mean = sum(rows.flatMap((row) => [...row])) / (sides[0] * sides[1]);
  if (Math.min(...sides) > 0.7 * Math.max(...sides) && mean > 0.6)
    throw new PictureError("the picture shows a dot; draw a digit, or crop the picture to one");
  const scale = BOX / Math.max(...sides);
  const [newHeight, newWidth] = sides.map((side) => Math.max(1, roundHalfEven(side * scale)));
  const small = resized(rows, newHeight, newWidth);
  const most = Math.max(...small.flat());
  let total = 0, vertical = 0, horizontal = 0;
  small.forEach((row, y) => row.forEach((value, x) => {
    row[x] = Math.min(Math.max(value / most, 0), 1);
    total += row[x]; vertical += row[x] * y; horizontal += row[x] * x;
  }));
  const place = (centre, side) => Math.min(Math.max(roundHalfEven(SIDE / 2 - centre), 0), SIDE - side);
  const y0 = place(vertical / total, newHeight), x0 = place(horizontal / total, newWidth);
  const out = new Uint8Array(SIDE * SIDE);
  small.forEach((row, y) => row.forEach((value, x) => { out[(y0 + y) * SIDE + x0 + x] = roundHalfEven(value * 255); }));
  return out;
}
