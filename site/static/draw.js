// The page to draw on: every network of the study answers, and one can be looked into.

import { grey, MOST_PIXELS, PictureError, prepare, WORKING_SIDE } from "./prepare.js";

const here = new URL("../nets/", import.meta.url);
const ort = await import(new URL("ort.wasm.min.mjs", here));
ort.env.wasm.wasmPaths = here.href;
ort.env.wasm.numThreads = 1;

const byId = (id) => document.getElementById(id);
const board = byId("board"), seen = byId("seen"), answer = byId("answer"), which = byId("which");
const pen = board.getContext("2d", { willReadFrequently: true });
const { nets, examples, hard } = await (await fetch(new URL("nets.json", here))).json();
const sessions = new Map(), SHEET = 330; // pixels of the page that maps may take side by side
let pixels = null, drawing = null, example = -1, busy = false, again = false, due = false;

function blank() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, board.width, board.height);
}

function forget(text) {
  pixels = null;
  paint(seen, new Float32Array(784), 28, 28, 5);
  for (const row of byId("answers").tBodies[0].rows) for (const cell of [...row.cells].slice(2)) cell.textContent = "";
  byId("maps").replaceChildren();
  answer.textContent = text;
}

/**
 * Draw maps of [height * width] values side by side on one canvas, a pixel apart, each scaled to its
 * own largest value: greys from 0 up, or blue above and vermilion below 0.
 */
function paint(canvas, values, height, width, zoom, { signed = false, first = 0, maps = 1 } = {}) {
  const columns = Math.min(maps, Math.floor(SHEET / (zoom * (width + 1)))), rows = Math.ceil(maps / columns);
  canvas.width = columns * (width + 1) - 1;
  canvas.height = rows * (height + 1) - 1;
  canvas.style.width = `${canvas.width * zoom}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let map = 0; map < maps; map++) {
    const start = (first + map) * height * width;
    const corner = Math.floor(map / columns) * (height + 1) * canvas.width + (map % columns) * (width + 1);
    let most = 1e-9;
    for (let i = 0; i < height * width; i++) most = Math.max(most, Math.abs(values[start + i]));
    for (let i = 0; i < height * width; i++) {
      const share = values[start + i] / most, rest = 255 * (1 - Math.abs(share));
      const at = 4 * (corner + Math.floor(i / width) * canvas.width + (i % width));
      const up = signed && share > 0, down = signed && share <= 0;
      image.data[at] = down ? 213 + rest * 0.16 : rest;
      image.data[at + 1] = up ? 114 + rest * 0.55 : down ? 94 + rest * 0.63 : rest;
      image.data[at + 2] = up ? 178 + rest * 0.3 : rest;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

async function show() {
  if (busy) { again = true; return; }
  busy = true;
  const input = pixels, tensor = new ort.Tensor("float32", Float32Array.from(input), [1, 1, 28, 28]);
  paint(seen, input, 28, 28, 5);
  const rows = byId("answers").tBodies[0].rows;
  let first = null;
  for (const [index, net] of nets.entries()) {
    if (!sessions.has(net.name)) continue;
    const looked = net.name === which.value, session = sessions.get(net.name);
    const output = await session.run({ pixels: tensor }, looked ? session.outputNames : ["probabilities"]);
    if (!pixels) break;  // cleared meanwhile
    const shares = [...output.probabilities.data], digit = shares.indexOf(Math.max(...shares));
    const cells = rows[index].cells;
    cells[2].textContent = digit;
    shares.forEach((share, d) => {
      cells[3 + d].textContent = Math.round(100 * share);
      cells[3 + d].style.fontWeight = d === digit ? "bold" : "normal";
    });
    first ??= `${net.name} reads ${digit}, at ${Math.round(100 * shares[digit])} %`;
    if (looked) look(net, output, digit);
  }
  if (pixels === input) answer.textContent = first ?? "No network could be loaded.";
  busy = false;
  window.answered = (window.answered ?? 0) + 1;
  if (again) { again = false; if (pixels) await show(); }
}

function figure(caption, canvas) {
  const made = document.createElement("figure"), text = document.createElement("figcaption");
  text.textContent = caption;
  made.append(text, canvas);
  return made;
}

function look(net, output, digit) {
  const found = Object.entries(net.stages).map(([stage, words]) => {
    const map = output[stage], [, maps, height, width] = map.dims, canvas = document.createElement("canvas");
    paint(canvas, map.data, height, width, Math.max(1, Math.round(42 / width)), { maps });
    return figure(`${words}: ${maps} maps of ${height}x${width}, dark is high`, canvas);
  });
  if (output.evidence) {
    const [, , height, width] = output.evidence.dims, canvas = document.createElement("canvas");
    paint(canvas, output.evidence.data, height, width, 14, { signed: true, first: digit });
    found.push(figure(`where it finds evidence for ${digit}: blue speaks for it, orange-red against it`, canvas));
  }
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
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    forget(`${file.name} cannot be read as a picture; save it as PNG or JPEG`);
    return;
  }
  if (picture.width * picture.height > MOST_PIXELS) {
    forget(`the picture has ${picture.width}x${picture.height} pixels; shrink it, or crop it to the digit`);
    return;
  }
  const scale = Math.min(1, WORKING_SIDE / Math.max(picture.width, picture.height));
  const width = Math.max(1, Math.round(picture.width * scale)), height = Math.max(1, Math.round(picture.height * scale));
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  blank();
  const fit = board.width / Math.max(width, height);
  pen.drawImage(picture, 0, 0, width * fit, height * fit);
  await read(grey(context.getImageData(0, 0, width, height).data), height, width);
}

function at(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) * board.width / box.width, (event.clientY - box.top) * board.height / box.height];
}

board.addEventListener("pointerdown", (event) => {
  if (example >= 0) { blank(); example = -1; }
  board.setPointerCapture(event.pointerId);
  drawing = at(event);
  stroke(event);
});
board.addEventListener("pointermove", (event) => drawing && stroke(event));
board.addEventListener("pointerup", () => { drawing = null; });
board.addEventListener("pointercancel", () => { drawing = null; });

function stroke(event) {
  const to = at(event);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 11;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...drawing);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
  drawing = to;
  if (!due) requestAnimationFrame(() => { due = false; readBoard(); }); // once for all moves of a frame
  due = true;
}

byId("clear").addEventListener("click", () => { blank(); example = -1; forget("Draw a digit."); });
byId("next").addEventListener("click", () => { example = (example + 1) % examples.length; take(decoded(examples[example])); });
byId("hard").addEventListener("click", () => { example = 0; take(decoded(hard)); });
byId("photo").addEventListener("change", (event) => event.target.files[0] && photo(event.target.files[0]));
which.addEventListener("change", () => pixels && show());

function table() {
  const [head] = byId("answers").tHead.rows;
  for (let digit = 0; digit < 10; digit++) head.append(Object.assign(document.createElement("th"), { textContent: digit, scope: "col" }));
  for (const net of nets) {
    const row = byId("answers").tBodies[0].insertRow();
    row.append(Object.assign(document.createElement("th"), { textContent: net.name, scope: "row" }));
    row.insertCell().textContent = net.parameters.toLocaleString("en");
    for (let cell = 0; cell < 11; cell++) row.insertCell();
    which.append(new Option(`${net.name}, ${net.parameters.toLocaleString("en")} parameters`, net.name));
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
