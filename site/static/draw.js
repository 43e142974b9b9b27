// The page to draw on: every network of the study answers, and one can be looked into.

import { grey, MOST_PIXELS, PictureError, prepare, WORKING_SIDE } from "./prepare.js";

const here = new URL("../nets/", import.meta.url);
const ort = await import(new URL("ort.wasm.min.mjs", here));
ort.env.wasm.wasmPaths = here.href;
ort.env.wasm.numThreads = 1;

const byId = (id) => document.getElementById(id);
const board = byId("board"), seen = byId("seen"), answer = byId("answer"), which = byId("which");
const pen = board.getContext("2d", { willReadFrequently: true });
const { nets, sure, examples, hard, label } = await (await fetch(new URL("nets.json", here))).json();
const sessions = new Map(), strokes = new Map(); // by network's name; by pointer, where it was last
let pixels = null, picture = null, example = -1, busy = false, again = false, due = false;

function blank() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, board.width, board.height);
}

/** Show no answer but a line. */
function forget(text) {
  pixels = null;
  paint(seen, new Float32Array(784), 28, 28);
  for (const row of byId("answers").tBodies[0].rows) for (const cell of [...row.cells].slice(2)) cell.textContent = "";
  for (const bar of byId("bars").children) { bar.firstChild.style.height = 0; bar.classList.remove("draw-most"); }
  byId("maps").replaceChildren();
  byId("big").textContent = "";
  answer.textContent = text;
}

/**
 * Draw maps of [height * width] values on one canvas, a pixel apart and each scaled to its own largest
 * value: greys from 0 up, or, signed, blue above and vermilion below 0, the paler the closer to it.
 */
function paint(canvas, values, height, width, { signed = false, first = 0, maps = 1, columns = 1 } = {}) {
  canvas.width = columns * (width + 1) - 1;
  canvas.height = Math.ceil(maps / columns) * (height + 1) - 1;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let map = 0; map < maps; map++) {
    const start = (first + map) * height * width;
    const corner = Math.floor(map / columns) * (height + 1) * canvas.width + (map % columns) * (width + 1);
    let most = 1e-9;
    for (let i = 0; i < height * width; i++) most = Math.max(most, Math.abs(values[start + i]));
    for (let i = 0; i < height * width; i++) {
      const share = values[start + i] / most, grey = 255 * (1 - Math.abs(share));
      const colour = signed ? [...(share > 0 ? [0, 114, 178] : [213, 94, 0]), 200 * Math.abs(share)] : [grey, grey, grey, 255];
      image.data.set(colour, 4 * (corner + Math.floor(i / width) * canvas.width + (i % width)));
    }
  }
  context.putImageData(image, 0, 0);
}

async function show() {
  if (busy) { again = true; return; }
  busy = true;
  const input = pixels, tensor = new ort.Tensor("float32", Float32Array.from(input), [1, 1, 28, 28]);
  const rows = byId("answers").tBodies[0].rows, chosen = nets.find((net) => net.name === which.value);
  let first = null;
  for (const net of [chosen, ...nets.filter((each) => each !== chosen)]) {
    if (!sessions.has(net.name) || (first && again)) continue; // a newer drawing need not wait
    const session = sessions.get(net.name);
    const output = await session.run({ pixels: tensor }, first ? ["probabilities"] : session.outputNames);
    if (!pixels) break; // cleared meanwhile
    const shares = [...output.probabilities.data], digit = shares.indexOf(Math.max(...shares));
    const cells = rows[nets.indexOf(net)].cells;
    cells[2].textContent = digit;
    shares.forEach((share, d) => {
      cells[3 + d].textContent = Math.round(100 * share);
      cells[3 + d].style.fontWeight = d === digit ? "bold" : "normal";
    });
    if (first) continue;
    first = net;
    say(net, shares, digit);
    look(net, input, output, digit);
  }
  if (!first && pixels === input) answer.textContent = "No network could be loaded.";
  busy = false;
  window.answered = (window.answered ?? 0) + 1;
  if (again) { again = false; if (pixels) await show(); }
}

/** The answer of one network: large, in a line, and as bars. */
function say(net, shares, digit) {
  const next = shares.indexOf(Math.max(...shares.filter((_, d) => d !== digit)));
  const [most, second] = [digit, next].map((d) => `${Math.round(100 * shares[d])} %`);
  const known = shares[digit] >= sure;
  byId("big").textContent = known ? digit : `${digit}?`;
  answer.textContent = known ? `${net.name} reads ${digit}, at ${most}` : `${net.name} is not sure: ${digit} at ${most}, or ${next} at ${second}`;
  shares.forEach((share, d) => {
    byId("bars").children[d].firstChild.style.height = `${4.4 * share}rem`;
    byId("bars").children[d].classList.toggle("draw-most", d === digit);
  });
}

/** What one network saw, the evidence in it, and the maps of its stages one after another. */
function look(net, input, output, digit) {
  paint(seen, input, 28, 28);
  byId("evidence").disabled = !output.evidence; // where the head does not pool, there is none
  if (output.evidence && byId("evidence").checked) {
    const [, , height, width] = output.evidence.dims, canvas = document.createElement("canvas");
    paint(canvas, output.evidence.data, height, width, { signed: true, first: digit });
    const [corner, step] = net.places;
    seen.getContext("2d").drawImage(canvas, corner, corner, width * step, height * step);
  }
  const found = Object.entries(net.stages).map(([stage, words], place) => {
    const map = output[stage], [, maps, height, width] = map.dims;
    const figure = byId("maps").children[place] ?? byId("maps").appendChild(document.createElement("figure"));
    if (!figure.firstChild) figure.append(document.createElement("figcaption"), document.createElement("canvas"));
    figure.firstChild.textContent = `${words}: ${maps} maps of ${height}x${width}`;
    paint(figure.lastChild, map.data, height, width, { maps, columns: 4 });
    figure.lastChild.style.width = "8rem";
    return figure;
  });
  byId("maps").replaceChildren(...found);
}

async function read(values, height, width) {
  try {
    pixels = prepare(values, height, width);
  } catch (error) {
    if (!(error instanceof PictureError)) throw error;
    forget(error.message);
    return;
  }
  await show();
}

function readBoard() {
  const { data } = pen.getImageData(0, 0, board.width, board.height);
  return read(grey(data), board.height, board.width);
}

/** Show [784] bytes on the board and let the networks read them as they are. */
async function take(bytes) {
  blank();
  bytes.forEach((value, i) => {
    pen.fillStyle = `rgb(${value},${value},${value})`;
    pen.fillRect((i % 28) * 5, Math.floor(i / 28) * 5, 5, 5);
  });
  pixels = Uint8Array.from(bytes);
  await show();
}

function decoded(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

async function photo(file) {
  const asked = picture = {};
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    forget(`${file.name} cannot be read as a picture; save it as PNG or JPEG`);
    return;
  }
  if (picture !== asked) return; // cleared meanwhile
  if (image.width * image.height > MOST_PIXELS) {
    forget(`the picture has ${image.width}x${image.height} pixels; shrink it, or crop it to the digit`);
    return;
  }
  const scale = Math.min(1, 4 * WORKING_SIDE / Math.max(image.width, image.height)); // the rest by prepare(), as in Python
  const width = Math.max(1, Math.round(image.width * scale)), height = Math.max(1, Math.round(image.height * scale));
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  blank();
  const fit = board.width / Math.max(width, height);
  pen.drawImage(image, 0, 0, width * fit, height * fit);
  await read(grey(context.getImageData(0, 0, width, height).data), height, width);
}

function at(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) * board.width / box.width, (event.clientY - box.top) * board.height / box.height];
}

board.addEventListener("pointerdown", (event) => {
  if (example >= 0) { blank(); example = -1; }
  board.setPointerCapture(event.pointerId);
  strokes.set(event.pointerId, at(event));
  stroke(event);
});
board.addEventListener("pointermove", (event) => strokes.has(event.pointerId) && stroke(event));
for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, (event) => strokes.delete(event.pointerId));

function stroke(event) {
  const to = at(event);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 11;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...strokes.get(event.pointerId));
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
  strokes.set(event.pointerId, to);
  if (!due) requestAnimationFrame(() => { due = false; readBoard(); }); // once for all moves of a frame
  due = true;
}

byId("clear").addEventListener("click", () => { blank(); example = -1; byId("photo").value = picture = ""; forget("Draw a digit."); });
byId("next").addEventListener("click", () => { example = (example + 1) % examples.length; take(decoded(examples[example])); });
byId("hard").addEventListener("click", () => { example = 0; take(decoded(hard)); });
byId("photo").addEventListener("click", (event) => { event.target.value = ""; }); // or the same one again would be no change
byId("photo").addEventListener("change", (event) => event.target.files[0] && photo(event.target.files[0]));
for (const id of ["which", "evidence"]) byId(id).addEventListener("change", () => pixels && show());

function table() {
  const [head] = byId("answers").tHead.rows;
  for (let digit = 0; digit < 10; digit++) {
    head.append(Object.assign(document.createElement("th"), { textContent: digit, scope: "col" }));
    byId("bars").append(Object.assign(document.createElement("div"), { innerHTML: `<div></div>${digit}` }));
  }
  for (const net of nets) {
    const row = byId("answers").tBodies[0].insertRow();
    row.append(Object.assign(document.createElement("th"), { textContent: net.name, scope: "row" }));
    row.insertCell().textContent = net.parameters.toLocaleString("en");
    for (let cell = 0; cell < 11; cell++) row.insertCell();
    which.append(new Option(net.name));
  }
}

async function load(net) {
  try {
    sessions.set(net.name, await ort.InferenceSession.create(new URL(`${net.name}.onnx`, here).href));
  } catch (error) {
    console.warn(`${net.name} cannot be loaded: ${error.message}`);
  }
}

blank();
table();
byId("hard").textContent = `A ${label} that finals get wrong`;
await load(nets[0]);
example = 0;
await take(decoded(examples[0]));
window.firstAnswer = performance.now(); // milliseconds since the page was asked for
await Promise.all(nets.slice(1).map(load));
await show();
window.ready = true;
/** The logits of one network for many images, 784 bytes each. */
async function logits(name, bytes) {
  const found = [];
  for (let start = 0; start < bytes.length; start += 784) {
    const image = Float32Array.from(bytes.subarray(start, start + 784));
    const feeds = { pixels: new ort.Tensor("float32", image, [1, 1, 28, 28]) };
    found.push([...(await sessions.get(name).run(feeds, ["logits"])).logits.data]);
  }
  return found;
}

window.page = { logits, decoded, take, readBoard, prepare };
