/* Elements of the page, by id and new ones. */

export const $ = id => document.getElementById(id);
export const make = (tag, className = "", text = "") =>
  Object.assign(document.createElement(tag), { className, textContent: text });

/* A button of the size that stands beside text. */
export function smallButton(text, onclick) {
  return Object.assign(make("button", "small", text), { type: "button", onclick });
}

/* Text as a sentence: with a capital letter and a full stop. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
