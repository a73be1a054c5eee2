// Two files of one network, dense and sparse, classify the same image with LiteRT.js.
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";

const RUNS = 15; // of each network for one latency, turn by turn
const NAMES = ["dense", "sparse"];

const find = (selector) => document.querySelector(selector);
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const kib = (bytes) => `${(bytes / 1024).toFixed(0)} KiB`;
const ms = (time) => `${time.toFixed(2)} ms`;

/** What `mobile.py` wrote beside the two files. */
const about = await (await fetch("models/page.json")).json();
const [height, width, channels] = about.shape;

// ---- Networks

const networks = {};

/** The logits, read back; the time of it all in ms. */
async function run(name, pixels) {
  const input = new Tensor(pixels, [1, height, width, channels]);
  const start = performance.now();
  const outputs = await networks[name].run([input]);
  const [output] = Array.isArray(outputs) ? outputs : Object.values(outputs);
  const logits = Array.from(output.toTypedArray());
  const time = performance.now() - start;
  output.delete();
  input.delete();
  return { logits, time };
}

const best = (logits) => logits.indexOf(Math.max(...logits));

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

/** One image through both networks, turn by turn. */
async function runBoth(pixels, runs) {
  const times = { dense: [], sparse: [] };
  const logits = {};
  for (let i = 0; i < runs; i++) {
    for (const name of NAMES) {
      const result = await run(name, pixels);
      times[name].push(result.time);
      logits[name] = result.logits;
    }
  }
  return { logits, dense: median(times.dense), sparse: median(times.sparse) };
}

// ---- The image

const drawing = find("#drawing");
const pen = drawing.getContext("2d", { willReadFrequently: true });
const small = new OffscreenCanvas(width, height);
const shrink = small.getContext("2d", { willReadFrequently: true });

/** The drawing in the network's size, values in [0, 1]. */
function pixelsOfDrawing() {
  shrink.imageSmoothingQuality = "high";
  shrink.drawImage(drawing, 0, 0, width, height);
  const { data } = shrink.getImageData(0, 0, width, height);
  const pixels = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const rgb = data.slice(4 * i, 4 * i + 3);
    if (channels === 3) {
      rgb.forEach((value, c) => (pixels[3 * i + c] = value / 255));
    } else {
      pixels[i] = (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255;
    }
  }
  return find("#invert").checked ? pixels.map((value) => 1 - value) : pixels;
}

function clear() {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, drawing.width, drawing.height);
}

/** Draws a test image onto a canvas of its own size. */
function paint(canvas, bytes) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = bytes[channels === 3 ? 3 * i + c : i];
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// ---- What is shown

function show(name, logits, time) {
  const card = find(`#${name}`);
  const shares = softmax(logits);
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
  card.querySelector(".class").textContent = about.labels[order[0]];
  card.querySelector(".latency").textContent = ms(time);
  card.querySelector(".classes").replaceChildren(
    ...order.slice(0, 3).map((i) => {
      const percent = `${(100 * shares[i]).toFixed(1)} %`;
      const item = document.createElement("li");
      item.style.setProperty("--share", percent.replace(" ", ""));
      item.textContent = `${about.labels[i]} ${percent}`;
      return item;
    }),
  );
}

const faster = (dense, sparse) => `${(dense / sparse).toFixed(1)} times as fast`;

// One image after the other, and of those that wait only the last.
let waiting = null;
let busy = false;

async function classify(pixels) {
  waiting = pixels;
  if (busy) return;
  busy = true;
  find("#compare").disabled = true;
  while (waiting) {
    const now = waiting;
    waiting = null;
    const { logits, dense, sparse } = await runBoth(now, RUNS);
    show("dense", logits.dense, dense);
    show("sparse", logits.sparse, sparse);
    const same = best(logits.dense) === best(logits.sparse);
    find("#verdict").textContent =
      `${same ? "Both say the same" : "They disagree"}; the sparse file is ` +
      `${faster(dense, sparse)}.`;
  }
  find("#compare").disabled = false;
  busy = false;
}

async function compare() {
  if (busy) return;
  busy = true;
  find("#compare").disabled = true;
  const right = { dense: 0, sparse: 0 };
  const times = { dense: [], sparse: [] };
  let same = 0;
  for (const [i, { pixels, label }] of samples.entries()) {
    const result = await runBoth(pixels, 3);
    const said = NAMES.map((name) => best(result.logits[name]));
    same += said[0] === said[1];
    NAMES.forEach((name, n) => {
      right[name] += said[n] === label;
      times[name].push(result[name]);
    });
    find("#comparison").textContent = `${i + 1} of ${samples.length}…`;
  }
  const [dense, sparse] = NAMES.map((name) => median(times[name]));
  find("#comparison").textContent =
    `The same class for ${same} of ${samples.length}. Right: dense ${right.dense}, ` +
    `sparse ${right.sparse}. Latency: dense ${ms(dense)}, sparse ${ms(sparse)}: ` +
    `${faster(dense, sparse)}.`;
  find("#compare").disabled = false;
  busy = false;
}

// ---- Start

const samples = about.samples.map(({ pixels, label }) => {
  const bytes = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0));
  return { bytes, label, pixels: Float32Array.from(bytes, (value) => value / 255) };
});

for (const sample of samples.slice(0, 32)) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  paint(canvas, sample.bytes);
  const button = document.createElement("button");
  button.title = about.labels[sample.label];
  button.append(canvas);
  button.addEventListener("click", () => {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(canvas, 0, 0, drawing.width, drawing.height);
    classify(sample.pixels);
  });
  find("#samples").append(button);
}

function draw(event) {
  const scale = drawing.width / drawing.clientWidth;
  pen.lineTo(event.offsetX * scale, event.offsetY * scale);
  pen.stroke();
  classify(pixelsOfDrawing());
}

drawing.addEventListener("pointerdown", (event) => {
  drawing.setPointerCapture(event.pointerId);
  [pen.strokeStyle, pen.lineWidth, pen.lineCap] = ["white", 24, "round"];
  pen.beginPath();
  draw(event);
});
drawing.addEventListener("pointermove", (event) => event.buttons && draw(event));
find("#invert").addEventListener("change", () => classify(pixelsOfDrawing()));
find("#clear").addEventListener("click", clear);
find("#compare").addEventListener("click", compare);
find("#file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  try {
    const image = await createImageBitmap(file);
    // The middle square of the image fills the drawing.
    const side = Math.min(image.width, image.height);
    const [left, top] = [(image.width - side) / 2, (image.height - side) / 2];
    pen.imageSmoothingEnabled = true;
    pen.drawImage(image, left, top, side, side, 0, 0, drawing.width, drawing.height);
    await classify(pixelsOfDrawing());
  } catch (error) {
    find("#verdict").textContent = `${file.name} is not an image: ${error.message}`;
  }
  event.target.value = ""; // the same file may be chosen again
});

clear();
try {
  await loadLiteRt("/node_modules/@litertjs/core/wasm/", { threads: false });
  for (const name of NAMES) {
    const { file, bytes, gzip } = about.files[name];
    networks[name] = await loadAndCompile(`models/${file}`, { accelerator: "wasm" });
    find(`#${name} .size`).textContent = `${kib(bytes)}, ${kib(gzip)} gzipped`;
  }
  find("#about").textContent = about.title;
  find("#compare").disabled = false;
  document.body.dataset.ready = "yes";
} catch (error) {
  find("#about").textContent = `The networks do not load: ${error.message}`;
  throw error;
}
