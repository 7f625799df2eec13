/* The form: what to generate and how, the requests to the service, and messages about them. */

import { $, make, sentence, smallButton } from "./elements.js";
import { beginSet, connectGallery, restoreGallery } from "./gallery.js";
import { linked, linkTo } from "./links.js";
import { clearMask, maskPng, onMaskChange, showMask } from "./mask.js";

const HOW = ["negative", "seed", "steps", "guidance", "solver"];
const FIELDS = {  // of each tab's request, as the service names them
  pictures: ["prompt", "count", "width", "height", ...HOW],
  interpolations: ["prompt", "to_prompt", "frames", "to_seed", ...HOW],
  edits: ["prompt", "count", "strength", ...HOW],
  outpaintings: ["prompt", "left", "right", "top", "bottom", ...HOW] };
const LABELS = { to_prompt: "To", to_seed: "To seed", count: "Images", picture: "Image", negative: "Negative prompt" };
const TEXTS = ["prompt", "to_prompt", "negative", "solver"];
const WITH_IMAGE = ["edits", "outpaintings"];
const CHIPS = 3;
let tab = "pictures", card = null;
let inputImage = "";   // to edit or extend: base64 of a PNG of the model's size
let running = null;    // AbortController of the running request
let asked = "prompt";  // the text that examples go into

function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(path, { ...options, headers });
}

const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

function say(message) { $("problem").textContent = message && sentence(message); }

/* Show the form, or the question for a token in its place. */
function showForm(isAllowed) {
  for (const id of ["form", "generate", "hint"]) $(id).hidden = !isAllowed;
  $("token-form").hidden = isAllowed;
}

async function whatIsWrong(answer) {
  const { detail, id } = await answer.json().catch(() => ({ detail: answer.statusText }));
  if (answer.status === 401) {
    showForm(false);
    return sessionStorage.getItem("token") ? "The service does not accept this token." : "";
  }
  const label = ({ loc }) => LABELS[loc.at(-1)] ?? sentence(String(loc.at(-1))).slice(0, -1);
  const message = Array.isArray(detail) ? detail.map(part => `${label(part)}: ${part.msg}`).join("; ") : String(detail);
  return id ? `${message}: ${id}` : message;
}

async function showCard() {
  const answer = await ask("card").catch(() => null);
  if (!answer?.ok) return say(answer ? await whatIsWrong(answer) : "The service does not answer.");
  const isFirst = card === null;
  card = await answer.json();
  showForm(true);
  say("");
  document.title = $("name").textContent = card.name;
  const pairs = card.model["training pairs"];
  $("summary").textContent = `${card.model.parameters.toLocaleString("en")} parameters`
    + (pairs ? `, trained on ${pairs.toLocaleString("en")} pairs` : "");
  for (const side of ["width", "height"]) {
    $(side).step = $(side).min = card.multiple;
    $(side).value = card.edge;
  }
  $("right").value = card.edge - Math.floor(card.edge * 3 / 8);  // one window
  for (const name of ["solver", "steps", "guidance"]) if (name in card.sampling) $(name).value = card.sampling[name];
  if (!$("prompt").value) $("prompt").value = card.example;
  clearMask(card.edge);
  $("brush-size").value = card.edge / 5;
  showExamples();
  showFacts();
  if (isFirst) await restoreGallery();
  followLink();
  countTokens("prompt");
}

function showFacts() {
  const titles = { model: "Model", data: "Data", scores: "Scores", encoders: "Encoders", sampling: "Sampling" };
  $("card").replaceChildren(...Object.entries(titles).flatMap(([part, title]) => {
    const rows = Object.entries(card[part]).flatMap(([name, value]) => [
      make("dt", "", name.replaceAll("_", " ")),
      make("dd", "", typeof value !== "number" ? value : Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(4)))]);
    const list = make("dl");
    list.append(...rows);
    return rows.length ? [make("h2", "", title), list] : [];
  }));
}

/* Captions of the training data, which say what the model understands. */
function showExamples() {
  const all = card.examples;
  $("examples").hidden = !all.length;
  const use = caption => {
    $(asked).value = caption;
    countTokens(asked);
    say("");
  };
  const chips = all.slice(0, CHIPS).map(caption => Object.assign(smallButton(caption, () => use(caption)), { title: caption }));
  const surprise = smallButton("Surprise me", () => {
    const others = all.filter(caption => caption !== $(asked).value);
    use((others.length ? others : all)[Math.floor(Math.random() * (others.length || all.length))]);
  });
  $("examples").replaceChildren(surprise, ...chips);
}

const counters = {};
/* Say how long a prompt is, and whether the text encoder reads all of it. */
function countTokens(field) {
  clearTimeout(counters[field]);
  counters[field] = setTimeout(async () => {
    const prompt = $(field).value.trim(), output = $(`${field}-tokens`);
    const answer = prompt ? await post("tokens", { prompt }).catch(() => null) : null;
    if (prompt !== $(field).value.trim()) return;  // another count is on its way
    const count = answer?.ok ? await answer.json() : null, isCut = count?.tokens > count?.limit;
    output.classList.toggle("cut", isCut);
    output.role = isCut ? "status" : null;
    output.textContent = !count ? "" : isCut
      ? `${count.tokens} tokens: the text encoder reads the first ${count.limit}, and the rest has no effect.`
      : `${count.tokens} of ${count.limit} tokens`;
  }, 250);
}

function choose(name) {
  tab = name;
  for (const other of Object.keys(FIELDS)) {
    $(other).ariaSelected = String(other === tab);
    $(other).tabIndex = other === tab ? 0 : -1;
  }
  $("fields").setAttribute("aria-labelledby", tab);
  for (const part of document.querySelectorAll("[data-tabs]")) {
    part.hidden = !part.dataset.tabs.split(" ").includes(tab) || (part.id === "stage" && !inputImage);
    for (const field of part.matches("canvas") ? [] : part.querySelectorAll("input, textarea")) field.disabled = part.hidden;
  }
  asked = tab === "interpolations" ? asked : "prompt";
  chooseSeed();
  say("");
}

/* A seed is only typed if it is not to be a new one each time. */
function chooseSeed() {
  $("seed").disabled = $("fresh").checked;
  if ($("fresh").checked) $("seed").value = "";
  else if (!$("seed").value) $("seed").value = 0;
}

/* Use an image as input. One of the model's size stays as it is; others are cropped to a square and resized. */
async function useImage(blob, words, name) {
  const source = new Image();
  source.src = URL.createObjectURL(blob);
  try {
    await source.decode();
  } catch {
    return say(`This browser cannot read ${words} as an image.`);
  } finally {
    URL.revokeObjectURL(source.src);
  }
  const { naturalWidth: width, naturalHeight: height } = source, { edge } = card;
  let url;
  if (blob.type === "image/png" && width === edge && height === edge) {
    url = await new Promise(resolve => Object.assign(new FileReader(), { onload() { resolve(this.result); } }).readAsDataURL(blob));
  } else {
    const canvas = make("canvas"), side = Math.min(width, height);
    canvas.width = canvas.height = edge;
    canvas.getContext("2d").drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, edge, edge);
    url = canvas.toDataURL("image/png");
  }
  showInput(url, words);
  choose(name);
}

function showInput(url, words) {
  inputImage = url.split(",")[1];
  $("input-image").src = url;
  $("input-image").className = card.edge < 200 ? "coarse" : "";
  $("input-image").alt = `Input: ${words}`;
  clearMask(card.edge);
}

/* Fill the form with the request of a set or of a link. */
function fillForm(kind, request) {
  choose(kind);
  const defaults = { width: card.edge, height: card.edge, count: 1, frames: 8, ...card.sampling };
  for (const name of FIELDS[kind]) $(name).value = request[name] ?? defaults[name] ?? "";
  if (kind === "edits") $("strength-value").textContent = $("strength").value;
  $("fresh").checked = false;
  chooseSeed();
  countTokens("prompt");
  countTokens("to_prompt");
}

async function useSet({ kind, request, inputs }) {
  if (inputs?.picture) showInput(`data:image/png;base64,${inputs.picture}`, request.prompt);
  fillForm(kind, request);
  if (inputs?.mask) {
    await showMask(inputs.mask);
    setStrength(request.strength);
  }
  $("prompt").focus();
  $("form").scrollIntoView({ block: "nearest" });
}

/* Make an unfinished image of a set to its end, or all of its frames: as another set. */
async function finishImage(set, seed) {
  if (running) return say("Other images are being made: wait for them, or press Stop.");
  const one = ["pictures", "edits"].includes(set.kind) ? { ...set.request, seed, count: 1 } : set.request;
  await useSet({ ...set, request: one });
  $("form").requestSubmit();
  if (running) say(differs(set.fingerprint));
}

/* The link of an image, or of a set of frames. Input images do not fit into a link. */
function linkOf(set, seed) {
  if (WITH_IMAGE.includes(set.kind)) return null;
  const one = set.kind === "pictures" ? { ...set.request, seed, count: 1 } : set.request;
  return linkTo(set.kind, one, set.fingerprint);
}

function followLink() {
  const link = linked(FIELDS);
  if (!link) return;
  fillForm(link.kind, link.request);
  say(differs(link.model));
}

/* What to say of an image whose model, of this fingerprint, may be another than the one that is served. */
function differs(fingerprint) {
  const isOther = fingerprint && card.model.fingerprint && fingerprint !== card.model.fingerprint;
  return isOther ? "This was made with another model, so the image will differ." : "";
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part; !(part = await reader.read()).done;) {
    const whole = (rest + part.value).split("\n");
    rest = whole.pop();
    yield* whole.map(line => JSON.parse(line));
  }
}

function imageOf(png) {
  return new Blob([Uint8Array.from(atob(png), letter => letter.charCodeAt(0))], { type: "image/png" });
}

async function generate(kind, request, inputs, signal) {
  const answer = await post(`${kind}/stream?previews=true`, { ...request, ...inputs }, signal);
  if (!answer.ok) throw new Error(await whatIsWrong(answer));
  const view = beginSet({ kind, request, inputs, model: card.name, fingerprint: card.model.fingerprint });
  let last = "", seen = 0;
  try {
    for await (const event of lines(answer)) {
      if (event.event !== last) seen = 0;
      last = event.event;
      if (last === "waiting") view.wait(event.ahead);
      if (last === "step") view.step(event.done, event.steps, kind === "outpaintings" ? "window" : "step");
      if (last === "preview") view.preview(seen++, event.seed, imageOf(event.png));
      if (last === "picture") view.add(event.seed, imageOf(event.png));
      if (last === "failed") throw new Error(event.id ? `${event.detail}: ${event.id}` : event.detail);
    }
    if (last !== "finished") throw new Error("The service closed the connection.");
    view.finish();
  } catch (error) {
    view.stop(error.name === "AbortError");
    throw error;
  }
}

/* The request of the form; or what is missing in it, as a sentence. */
function readForm() {
  const request = {};
  for (const name of FIELDS[tab]) {
    const value = $(name).value.trim();
    if (value) request[name] = TEXTS.includes(name) ? value : Number(value);
  }
  if ($("fresh").checked) request.seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;  // image i has seed + i
  if (request.width === card.edge && request.height === card.edge) delete request.width, delete request.height;
  const isStill = (request.to_prompt ?? request.prompt) === request.prompt && (request.to_seed ?? request.seed) === request.seed;
  if (WITH_IMAGE.includes(tab) && !inputImage) return "Choose an image first.";
  if (!request.prompt) return "Write a prompt.";
  if (tab === "interpolations" && isStill) return "Write under “To” what the last frame shows, or give it another seed.";
  if (tab === "outpaintings" && !(request.left || request.right || request.top || request.bottom))
    return "Give the number of pixels to add on at least one side.";
  return request;
}

$("form").onsubmit = async submitted => {
  submitted.preventDefault();
  if (running) return running.abort();
  if (!card) return showCard();
  const request = readForm(), kind = tab;
  if (typeof request === "string") return say(request);
  say("");
  const inputs = WITH_IMAGE.includes(kind) ? { picture: inputImage, mask: kind === "edits" ? maskPng() : undefined } : {};
  $("generate").textContent = "Stop";
  running = new AbortController();
  try {
    await generate(kind, request, inputs, running.signal);
  } catch (error) {
    if (error.name !== "AbortError") say(error.name === "TypeError" ? "The service does not answer." : error.message);
  }
  running = null;
  $("generate").textContent = "Generate";
};
// The second click of a double click is no wish: neither to stop what the first started, nor to start anew.
$("generate").onclick = event => { if (event.detail > 1) event.preventDefault(); };
$("form").addEventListener("invalid", event => { if ($("more").contains(event.target)) $("more").open = true; }, true);

const tabs = Object.keys(FIELDS);
for (const name of tabs) $(name).onclick = () => choose(name);
document.querySelector("[role=tablist]").onkeydown = event => {
  const place = tabs.indexOf(tab), last = tabs.length - 1;
  const to = { ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  choose(tabs[to]);
  $(tab).focus();
};
for (const name of ["prompt", "to_prompt", "negative"]) {
  $(name).onkeydown = event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
  };
}
for (const name of ["prompt", "to_prompt"]) {
  $(name).oninput = () => countTokens(name);
  $(name).onfocus = () => { asked = name; };
}
$("fresh").onchange = chooseSeed;
function setStrength(value) { $("strength-value").textContent = $("strength").value = value; }
$("strength").oninput = () => setStrength($("strength").value);
onMaskChange(isPainted => setStrength(isPainted ? 1 : 0.7));
/* Use the first of some files, in this tab or, if it takes no image, as one to edit. */
function takeFile([file]) {
  if (!file || !card) return;
  say("");
  $("large").close();
  useImage(file, file.name, WITH_IMAGE.includes(tab) ? tab : "edits");
}
$("file").onchange = () => takeFile($("file").files);
document.addEventListener("paste", event => {
  const { files, types } = event.clipboardData;  // word processors copy text with an image of it
  const isText = types.includes("text/plain") && event.target.matches?.("input, textarea");
  if (!files.length || isText) return;  // text goes where the cursor is
  event.preventDefault();
  takeFile(files);
});
// Left to itself, a browser shows the file that is dropped in place of the page.
document.addEventListener("dragover", event => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
document.addEventListener("drop", event => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  takeFile(event.dataTransfer.files);
});
$("token-form").onsubmit = submitted => {
  submitted.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  showCard();
};
connectGallery({ useSet, useImage, finishImage, linkTo: linkOf });
addEventListener("hashchange", followLink);
choose(tab);
showCard();
