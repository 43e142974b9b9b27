// A picture of a digit as MNIST's makers prepared theirs: the same steps as study/digit.py.

const BOX = 20, SIDE = 28, THUMBNAIL = 40, LEAST_CONTRAST = 0.1;
export const WORKING_SIDE = 400, MOST_PIXELS = 50_000_000;

export class PictureError extends Error {}

function roundHalfEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
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
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const fill = sum(out.map((value, i) => value * alpha[i])) > 0.5 * sum(alpha) ? 0 : 1;
  return out.map((value, i) => value * alpha[i] + fill * (1 - alpha[i]));
}

/** The median of the edge, on a plane through the medians of its four sides. */
function background(values, height, width, rim, atEdge) {
  const medianAt = (array, kept) => median(array.filter((_, i) => kept(Math.floor(i / width), i % width)));
  if (Math.min(height, width) < THUMBNAIL) return new Float64Array(values.length).fill(medianAt(values, atEdge));
  const down = medianAt(values, (y) => y >= height - rim) - medianAt(values, (y) => y < rim);
  const across = medianAt(values, (y, x) => x >= width - rim) - medianAt(values, (y, x) => x < rim);
  const tilt = values.map((_, i) =>
    (Math.floor(i / width) / (height - 1) - 0.5) * down + ((i % width) / (width - 1) - 0.5) * across);
  const middle = medianAt(values.map((value, i) => value - tilt[i]), atEdge);
  return tilt.map((t) => t + middle);
}

function digitMask(mask, height, width) {
  const labels = new Int32Array(mask.length), boxes = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const box = { label: boxes.length + 1, area: 0, left: width, right: 0, top: height, bottom: 0 };
    const stack = [start];
    labels[start] = box.label;
    while (stack.length) {
      const i = stack.pop(), y = Math.floor(i / width), x = i % width;
      box.area++;
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
  const largest = Math.max(...boxes.map((box) => box.area));
  const kept = boxes.filter((box) => box.area >= 0.03 * largest).sort((a, b) => a.left - b.left);
  const groups = [];
  for (const box of kept) {
    const last = groups.at(-1);
    if (last && box.left < last.right) {
      last.right = Math.max(last.right, box.right);
      last.top = Math.min(last.top, box.top);
      last.bottom = Math.max(last.bottom, box.bottom);
    } else groups.push({ ...box });
  }
  const tallest = Math.max(...groups.map((g) => g.bottom - g.top));
  const digits = groups.filter((g) => g.bottom - g.top > 0.6 * tallest).length;
  if (digits > 1) throw new PictureError(`the picture shows ${digits} digits; crop it to one`);
  const wanted = new Set(kept.map((box) => box.label));
  let grown = Uint8Array.from(labels, (label) => (wanted.has(label) ? 1 : 0));
  for (let step = Math.max(1, Math.floor(Math.max(height, width) / 50)); step > 0; step--) {
    const before = grown;
    grown = Uint8Array.from(before);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        if (before[i]) continue;
        if ((y > 0 && before[i - width]) || (y < height - 1 && before[i + width])
          || (x > 0 && before[i - 1]) || (x < width - 1 && before[i + 1])) grown[i] = 1;
      }
  }
  return grown;
}

function inkOf(values, height, width) {
  const rim = Math.max(1, Math.floor(Math.min(height, width) / 20));
  const atEdge = (y, x) => y < rim || x < rim || y >= height - rim || x >= width - rim;
  const flat = background(values, height, width, rim, atEdge);
  let ink = values.map((value, i) => value - flat[i]);
  const edge = ink.filter((_, i) => atEdge(Math.floor(i / width), i % width)), middle = median(edge);
  const noise = 1.4826 * median(edge.map((value) => Math.abs(value - middle)));
  let up = 0, down = 0;
  for (const value of ink) {
    const bounded = Math.min(Math.max(value, -1), 1);
    if (bounded > 0) up += bounded * bounded; else down += bounded * bounded;
  }
  if (!(up > down)) ink = ink.map((value) => -value);
  const most = ink.reduce((a, b) => Math.max(a, b), -Infinity);
  if (most < Math.max(LEAST_CONTRAST, 6 * noise))
    throw new PictureError("the picture is empty: nothing stands out from its background");
  ink = ink.map((value) => Math.min(Math.max((value - 4 * noise) / (most - 4 * noise), 0), 1));
  if (Math.min(height, width) < THUMBNAIL) return ink;
  const mask = digitMask(ink.map((value) => (value > 0.4 ? 1 : 0)), height, width);
  return ink.map((value, i) => (mask[i] ? value : 0));
}

/** For each place after resizing the first place before that counts, and the weights from there on. */
function resampling(before, after) {
  const ratio = before / after, wide = Math.max(ratio, 1), rows = [];
  for (let k = 0; k < after; k++) {
    const centre = (k + 0.5) * ratio - 0.5, weights = [];
    const first = Math.max(0, Math.ceil(centre - 2 * wide)), last = Math.min(before - 1, Math.floor(centre + 2 * wide));
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const x = Math.abs(centre - i) / wide;
      weights.push(x < 1 ? 1.5 * x ** 3 - 2.5 * x ** 2 + 1 : -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2);
      sum += weights.at(-1);
    }
    rows.push({ first, weights: weights.map((weight) => weight / sum) });
  }
  return rows;
}

function weighted({ first, weights }, values) {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i] * values[first + i];
  return sum;
}

function crop(ink, height, width) {
  let top = height, bottom = -1, left = width, right = -1;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (ink[y * width + x] > 0) {
        top = Math.min(top, y); bottom = Math.max(bottom, y);
        left = Math.min(left, x); right = Math.max(right, x);
      }
  const rows = [];
  for (let y = top; y <= bottom; y++) rows.push(ink.slice(y * width + left, y * width + right + 1));
  return rows;
}

/** [28 * 28] bytes, ink 255 on 0, from greys [height * width] in 0..1. */
export function prepare(values, height, width) {
  const rows = crop(inkOf(values, height, width), height, width);
  const sides = [rows.length, rows[0].length], mean = rows.flatMap((row) => [...row]).reduce((a, b) => a + b, 0) / (sides[0] * sides[1]);
  if (Math.min(...sides) > 0.7 * Math.max(...sides) && mean > 0.6)
    throw new PictureError("the picture shows a dot; draw a digit, or crop the picture to one");
  const scale = BOX / Math.max(...sides);
  const newHeight = Math.max(1, roundHalfEven(rows.length * scale));
  const newWidth = Math.max(1, roundHalfEven(rows[0].length * scale));
  const down = resampling(rows.length, newHeight), across = resampling(rows[0].length, newWidth);
  const columns = across.map((column) => rows.map((row) => weighted(column, row)));
  const small = down.map((row) => columns.map((column) => weighted(row, column)));
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
