/* The gallery of this browser: sets of images that outlive the page, up to a bound. */

const MOST_SETS = 60;
const MOST_BYTES = 100e6;

const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("tld-gallery", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("sets", { keyPath: "id" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
opened.catch(() => {});  // whoever waits for it is told

async function change(mode, work) {
  const transaction = (await opened).transaction("sets", mode);
  const request = work(transaction.objectStore("sets"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

const bytesOf = set => set.images.reduce((sum, image) => sum + image.blob.size, 0)
  + (set.inputs?.picture?.length ?? 0) + (set.inputs?.mask?.length ?? 0);

/* The sets beyond the bound, of a list with the newest first. The newest is never one of them. */
export function surplus(sets) {
  let bytes = 0;
  return sets.filter((set, number) => (bytes += bytesOf(set)) > MOST_BYTES && number > 0 || number >= MOST_SETS);
}

/* All sets, the newest first. */
export async function loadSets() {
  const sets = await change("readonly", store => store.getAll());
  return sets.sort((a, b) => b.id.localeCompare(a.id));
}

export const saveSet = set => change("readwrite", store => store.put(set));
export const removeSet = id => change("readwrite", store => store.delete(id));
export const removeAll = () => change("readwrite", store => store.clear());

let last = 0;
/* An id that sorts by age. */
export function newId() {
  last = Math.max(Date.now(), last + 1);
  return `${String(last).padStart(15, "0")}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}
