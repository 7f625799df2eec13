/* Links that reproduce an image: a request behind the # of the page's address, which no server sees. */

/* The address of a request; `model` is the fingerprint of its model, if it has one. */
export function linkTo(kind, request, model) {
  const fields = Object.entries(request).filter(([, value]) => value !== undefined);
  const parameters = new URLSearchParams([["kind", kind], ...fields, ...model ? [["model", model]] : []]);
  return `${location.origin}${location.pathname}#${parameters}`;
}

/* What the page's address asks for: { kind, request, model }, with texts as values; or nothing. */
export function linked(fields) {
  const parameters = new URLSearchParams(location.hash.slice(1)), kind = parameters.get("kind");
  if (!Object.hasOwn(fields, kind) || !parameters.get("prompt")) return null;
  const request = Object.fromEntries(fields[kind].map(name => [name, parameters.get(name) ?? undefined]));
  return { kind, request, model: parameters.get("model") };
}
