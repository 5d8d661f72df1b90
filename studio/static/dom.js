// Small helpers to build the page: elements, icons, numbers as text.

/**
 * An element: h("button", {class: "primary", onclick: run, disabled: true}, "Track").
 * Keys with "on" are listeners; `dataset` and `style` take objects; true and false set and leave out an attribute.
 * Children are nodes or texts; null and false are left out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, style] of Object.entries(value)) element.style.setProperty(key, style);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Strokes in a box of 24 by 24.
const ICONS = {
  undo: "M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10h-4",
  redo: "M16 5l4 4-4 4M20 9H10a5 5 0 0 0 0 10h4",
  home: "M4 11 12 4l8 7M6 10v9h12v-9",
  help: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 2M12 17v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M19 14.5A8 8 0 0 1 9.5 5 8 8 0 1 0 19 14.5",
  point: "M12 3v5M12 16v5M3 12h5M16 12h5M12 11.5v1",
  box: "M5 5h14v14H5zM3.5 5h3M5 3.5v3M17.5 5h3M19 3.5v3M3.5 19h3M5 17.5v3M17.5 19h3M19 17.5v3",
  brush: "M20 4c-4 1-8 5-10 9l2 2c4-2 7-6 8-11M9 14c-2 0-3 1.5-3 3 0 1.5-1 2.5-3 3 2 1 8 1 8-4",
  eraser: "M9 19 3.5 13.5l9-9L20 12l-7 7zM8 9l7.5 7.5M9 19h11",
  hand: "M8 12V6.5a1.5 1.5 0 0 1 3 0V11M11 10V5a1.5 1.5 0 0 1 3 0v6M14 10V6.5a1.5 1.5 0 0 1 3 0V13M17 12v-2a1.5 1.5 0 0 1 3 0v5a6 6 0 0 1-6 6h-1.5a6 6 0 0 1-5-2.600L4 14.5a1.600 1.600 0 0 1 2.5-2L8 14",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  play: "M8 5v14l11-7z",
  pause: "M8 5v14M16 5v14",
  prev: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  first: "M6 5v14M18 5l-8 7 8 7",
  last: "M18 5v14M6 5l8 7-8 7",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5",
  hidden: "M4 4l16 16M9 6.200a8.600 8.600 0 0 1 3-.7c6 0 9.5 6.5 9.5 6.5a17 17 0 0 1-2.700 3.5M6 8.200A17 17 0 0 0 2.5 12S6 18.5 12 18.5a8.700 8.700 0 0 0 4-1",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  unlock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.800-1.200",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 13h8.400L17 7M10.5 11v5M13.5 11v5",
  download: "M12 4v11M7.5 11 12 15.5 16.5 11M5 20h14",
  upload: "M12 16V5M7.5 9 12 4.5 16.5 9M5 20h14",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20 20",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.5 10 17.5 19.5 7",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  merge: "M6 4v4c0 4 6 4 6 8v4M18 4v4c0 4-6 4-6 8",
  split: "M12 4v4c0 4-6 4-6 8v4M12 8c0 4 6 4 6 8v4",
  swap: "M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  view: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  sparkle: "M12 4l1.800 6.200L20 12l-6.200 1.800L12 20l-1.800-6.200L4 12l6.200-1.800z",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.5h4M4 14.5h4M16 9.5h4M16 14.5h4",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  warning: "M12 4 3 20h18zM12 10v5M12 17.5v.5",
};

/** A line icon that takes the colour of the text around it; its button needs a label of its own. */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon alone: its label is read aloud and shown as a tooltip, with its key in brackets. */
export function iconButton(name, label, onclick, { key = "", ...attributes } = {}) {
  const title = key ? `${label} (${key})` : label;
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title, onclick, ...attributes }, icon(name));
}

/** "0:07.3", the time of a frame. */
export function timeText(frame, fps) {
  const seconds = frame / fps;
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${Math.floor((seconds - whole) * 10)}`;
}

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
