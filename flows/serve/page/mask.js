/* The brush that paints a mask over an image. */

import { $, make } from "./elements.js";

const TINT = "#d2284688";
const view = $("mask"), strokes = make("canvas");  // white where the image shall change
let edge = 0, cursor = null, last = null, isPainted = false;
let afterChange = () => {};

function redraw() {
  const context = view.getContext("2d");
  context.globalCompositeOperation = "copy";
  context.drawImage(strokes, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = TINT;
  context.fillRect(0, 0, edge, edge);
  context.globalCompositeOperation = "source-over";
  if (!cursor) return;
  for (const [colour, radius] of [["#000", $("brush-size").value / 2], ["#fff", $("brush-size").value / 2 + edge / 150]]) {
    context.strokeStyle = colour;
    context.lineWidth = edge / 150;
    context.beginPath();
    context.arc(cursor.x, cursor.y, radius, 0, 7);
    context.stroke();
  }
}

function paint(from, to) {
  const context = strokes.getContext("2d");
  context.strokeStyle = "#fff";
  context.lineCap = "round";
  context.lineWidth = $("brush-size").value;
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y + 0.001);  // a line of no length would leave no dot
  context.stroke();
  setPainted(true);
}

function setPainted(value) {
  if (isPainted === value) return;
  isPainted = value;
  afterChange(isPainted);
}

function place(event) {
  const box = view.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width * edge, y: (event.clientY - box.top) / box.height * edge };
}

view.onpointerdown = event => {
  view.setPointerCapture(event.pointerId);
  last = cursor = place(event);
  paint(last, last);
  redraw();
};
view.onpointermove = event => {
  cursor = place(event);
  if (last) paint(last, last = cursor);
  redraw();
};
view.onpointerup = view.onpointercancel = () => { last = null; };
view.onpointerleave = view.onblur = () => { cursor = null; redraw(); };
view.onfocus = () => { cursor ??= { x: edge / 2, y: edge / 2 }; redraw(); };
view.onkeydown = event => {
  const step = Math.max(1, edge / 32);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step], " ": [0, 0] };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  cursor ??= { x: edge / 2, y: edge / 2 };
  if (event.key === " ") paint(cursor, cursor);
  const within = value => Math.min(edge, Math.max(0, value));
  cursor = { x: within(cursor.x + move[0]), y: within(cursor.y + move[1]) };
  redraw();
};
$("clear-mask").onclick = () => clearMask(edge);

/* An empty mask for images of this size. */
export function clearMask(size) {
  edge = view.width = view.height = strokes.width = strokes.height = size;
  $("brush-size").max = Math.round(edge / 2);
  setPainted(false);
  redraw();
}

/* Base64 of a PNG, white on black; nothing if nothing is painted. */
export function maskPng() {
  if (!isPainted) return undefined;
  const canvas = make("canvas"), context = canvas.getContext("2d");
  canvas.width = canvas.height = edge;
  context.fillRect(0, 0, edge, edge);
  context.drawImage(strokes, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}

/* Show a mask that `maskPng` made. */
export async function showMask(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const context = strokes.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, edge, edge);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];  // black is clear
  context.putImageData(pixels, 0, 0);
  setPainted(true);
  redraw();
}

/* Call a function with whether anything is painted, when that changes. */
export function onMaskChange(listener) { afterChange = listener; }
