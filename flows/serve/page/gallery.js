/* The gallery: sets of images, the dialog that shows one large, and what this browser keeps. */

import { $, make, smallButton } from "./elements.js";
import { loadSets, newId, removeAll, removeSet, saveSet, surplus } from "./store.js";

const views = [];  // of sets, the newest first: { set, article, tiles, urls }
let actions = {};  // what the form does: { useSet(set), useImage(blob, words, tab), finishImage(set, seed), linkTo(set, seed) }
let large = null;  // what the dialog shows: { view, number }

export function connectGallery(form) { actions = form; }

/* A new set on top of the gallery, and what to call while its images are made. */
export function beginSet(set) {
  const view = show({ ...set, id: newId(), images: [], note: "" }, false);
  const count = set.request.count ?? set.request.frames ?? 1;
  const state = make("div", "quiet", "Waiting."), bar = make("progress");
  const previews = [];  // of images that are not finished: { seed, blob, unfinished }
  let progress = "before the first step";
  bar.max = set.request.steps;
  bar.value = 0;
  bar.ariaLabel = "Sampling";
  view.tiles.append(...Array.from({ length: count }, emptyTile));
  view.tiles.before(bar, state);
  view.article.scrollIntoView({ block: "nearest" });

  function finish(note) {
    bar.remove();
    state.remove();
    for (const tile of view.tiles.querySelectorAll(".tile:empty")) tile.remove();
    view.set.note = note;
    showNote(view);
    view.buttons.append(deleteButton(view));
    keep(view);
  }
  return {
    wait(ahead) { state.textContent = ahead ? `Waiting: the work of ${plural(ahead)} comes first.` : "Starting."; },
    step(done, steps, unit) {
      progress = `at ${unit} ${done} of ${steps}`;
      bar.max = steps;
      bar.value = done;
      state.textContent = `${unit[0].toUpperCase()}${unit.slice(1)} ${done} of ${steps}.`;
    },
    add(seed, blob) {
      view.set.images.push({ seed, blob });
      fill(view, view.set.images.length - 1);
    },
    preview(number, seed, blob) {
      previews[number] = { seed, blob, unfinished: progress };
      showPreview(view.tiles.children[number], blob);
    },
    finish() { finish(""); },
    /* Keep what there is of a set that its user stopped, or that failed. */
    stop(isWanted) {
      const images = view.set.images.length, rest = previews.slice(images);
      if (!isWanted && !images && !rest.length) return drop(view);
      rest.forEach((image, number) => {
        view.set.images.push(image);
        fill(view, images + number);
      });
      const done = images ? `${plural(images)} of ${count} ${images === 1 ? "was" : "were"} finished` : "no image was finished";
      finish(`${isWanted ? "Stopped" : "Failed"} ${progress}; ${done}${rest.length ? `, ${plural(rest.length)} kept as a preview` : ""}.`);
    },
  };
}

/* Show what this browser has kept. */
export async function restoreGallery() {
  try {
    for (const set of (await loadSets()).reverse()) show(set, true);
  } catch {
    forgetful();
  }
}

function forgetful() {
  $("gallery-note").textContent = "This browser keeps no images: they are gone when you close the page.";
}

async function keep(view) {
  const sets = views.map(each => each.set);
  try {
    await saveSet(view.set);
    for (const set of surplus(sets)) await forget(views.find(each => each.set === set));
  } catch {
    forgetful();
  }
}

function show(set, isFinished) {
  const article = make("article", "set"), head = make("div", "head"), words = make("div");
  const title = set.request.to_prompt ? `${set.request.prompt} → ${set.request.to_prompt}` : set.request.prompt;
  const heading = make("h2", "clamp", title);
  heading.title = title;
  const buttons = make("div", "buttons");
  const tiles = make("div", set.kind === "outpaintings" ? "tiles wide" : "tiles");
  const view = { set, article, tiles, buttons, words, urls: [] };
  words.append(heading, make("div", "quiet", describe(set)));
  buttons.append(smallButton("Use again", () => actions.useSet(set)));
  head.append(words, buttons);
  article.append(head, tiles);
  if (isFinished) {
    showNote(view);
    buttons.append(deleteButton(view));
    set.images.forEach((_, number) => fill(view, number));
  }
  views.unshift(view);
  $("sets").prepend(article);
  $("gallery-head").hidden = false;
  return view;
}

function describe({ kind, request, inputs, model }) {
  const sides = ["left", "right", "top", "bottom"].filter(side => request[side]).map(side => `${side} ${request[side]}`);
  const toSeed = request.to_seed === undefined ? "" : ` to ${request.to_seed}`;
  return [
    ...sides,
    ...kind === "edits" ? [`strength ${request.strength}${inputs?.mask ? " with a mask" : ""}`] : [],
    ...request.width ? [`${request.width} × ${request.height}`] : [],
    `seed ${request.seed}${toSeed}`, `${request.steps} steps`, `guidance ${request.guidance}`, request.solver,
    ...request.negative ? [`without “${request.negative}”`] : [],
    ...model === document.title ? [] : [`model ${model}`],
  ].join(", ");
}

function showNote(view) {
  if (view.set.note) view.words.append(make("div", "quiet", view.set.note));
}

function deleteButton(view) {
  const button = smallButton("Delete", () => { forget(view); $("prompt").focus(); });
  button.ariaLabel = `Delete the images of ${view.set.request.prompt}`;
  return button;
}

function emptyTile() {
  return Object.assign(make("button", "tile"), { type: "button", disabled: true, ariaLabel: "Not finished yet" });
}

function wordsOf(view, number) {
  const { seed, unfinished } = view.set.images[number];
  return `${unfinished ? `Unfinished, ${unfinished}: ` : ""}${view.set.request.prompt}, seed ${seed}`;
}

/* What an image looks like by now, in the place where it will be. */
function showPreview(tile, blob) {
  const img = tile.firstChild ?? tile.appendChild(make("img"));
  URL.revokeObjectURL(img.src);
  img.src = URL.createObjectURL(blob);
  img.alt = "";
  img.onload = () => { if (img.naturalWidth < 200) img.className = "coarse"; };
  tile.className = "tile unfinished";
}

function fill(view, number) {
  const tile = view.tiles.children[number] ?? view.tiles.appendChild(emptyTile());
  const img = make("img");
  if (tile.firstChild) URL.revokeObjectURL(tile.firstChild.src);
  img.src = view.urls[number] = URL.createObjectURL(view.set.images[number].blob);
  img.alt = wordsOf(view, number);
  img.onload = () => { if (img.naturalWidth < 200) img.className = "coarse"; };
  tile.replaceChildren(img);
  tile.className = view.set.images[number].unfinished ? "tile unfinished" : "tile";
  tile.disabled = false;
  tile.ariaLabel = null;
  tile.onclick = () => open(view, [...view.tiles.children].indexOf(tile));
}

/* Take a set out of the gallery. */
function plural(images) {
  return images === 1 ? "1 image" : `${images} images`;
}

function drop(view) {
  view.urls.forEach(url => URL.revokeObjectURL(url));
  view.article.remove();
  if (views.includes(view)) views.splice(views.indexOf(view), 1);
  $("gallery-head").hidden = !views.length;
}

async function forget(view) {
  drop(view);
  await removeSet(view.set.id).catch(forgetful);
}

$("delete-all").onclick = async () => {
  if (!confirm("Delete all images of this gallery?")) return;
  for (const view of views.filter(each => each.article.querySelector("progress") === null)) drop(view);
  await removeAll().catch(forgetful);
};

/* All finished images, in the order of the page. */
const finished = () => views.flatMap(view => view.set.images.map((_, number) => ({ view, number })));

function open(view, number) {
  const { set } = view, { seed, blob, unfinished } = set.images[number], words = wordsOf(view, number);
  large = { view, number };
  $("large-image").src = $("large-file").href = view.urls[number];
  $("large-image").className = view.tiles.children[number].firstChild.className;
  $("large-image").alt = $("large-words").textContent = $("large-words").title = words;
  $("large-file").download = `${set.request.prompt.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60)}-${seed}${unfinished ? "-unfinished" : ""}.png`;
  $("large-finish").hidden = !unfinished;
  $("large-finish").onclick = () => { $("large").close(); actions.finishImage(set, seed); };
  const link = actions.linkTo(set, seed);
  $("large-link").hidden = !link;
  $("large-link").href = link ?? "#";
  $("large-link").textContent = navigator.clipboard ? "Copy link" : "Link";
  $("large-edit").onclick = () => { $("large").close(); actions.useImage(blob, words, "edits"); };
  $("large-outpaint").onclick = () => { $("large").close(); actions.useImage(blob, words, "outpaintings"); };
  const all = finished(), place = placeOf(all);
  $("large-previous").disabled = place === 0;
  $("large-next").disabled = place === all.length - 1;
  if (!$("large").open) $("large").showModal();
  // A button that was pressed until it is disabled must not take the focus with it.
  if (!$("large").contains(document.activeElement) || document.activeElement.disabled) $("large-close").focus();
}

const placeOf = all => all.findIndex(each => each.view === large.view && each.number === large.number);

function move(by) {
  const all = finished(), next = all[placeOf(all) + by];
  if (next) open(next.view, next.number);
}

let deleting = false;  // a key that is held down repeats itself

async function deleteLarge() {
  if (deleting) return;
  deleting = true;
  try { await deleteShown(); } finally { deleting = false; }
}

async function deleteShown() {
  const { view, number } = large, all = finished(), place = placeOf(all);
  const next = all[place + 1] ?? all[place - 1];
  if (view.set.images.length === 1) await forget(view);
  else {
    view.set.images.splice(number, 1);
    URL.revokeObjectURL(view.urls.splice(number, 1)[0]);
    view.tiles.children[number].remove();
    await keep(view);
  }
  if (!next) $("large").close();
  else if ($("large").open) open(next.view, next.view === view && next.number > number ? next.number - 1 : next.number);
}

$("large-previous").onclick = () => move(-1);
$("large-next").onclick = () => move(1);
$("large-delete").onclick = deleteLarge;
$("large-close").onclick = () => $("large").close();
$("large").onclick = event => { if (event.target === $("large")) $("large").close(); };
document.addEventListener("keydown", event => {
  if (!$("large").open) return;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "Delete") deleteLarge();
  else return;
  event.preventDefault();
});
$("large-link").onclick = async event => {
  if (!navigator.clipboard) return $("large").close();  // over plain HTTP: follow the link
  event.preventDefault();
  await navigator.clipboard.writeText($("large-link").href).then(
    () => { $("large-link").textContent = "Link copied"; },
    () => { location.hash = new URL($("large-link").href).hash; $("large").close(); });
};
