// What the modules of the page share.

import { byId, toast } from "./panels.js";

export const app = {
  clip: null, // id
  state: null, // of the server
  pictures: null,
  current: 0, // frame
  selected: 0, // object
  exact: false, // single pixels are looked at
  playing: null, // a token of the loop that plays
  following: false, // the frame that is shown goes with the run that this page started
  overlayShown: true,
  hidden: new Set(), // objects
  stage: null,
  timeline: null,
};

export function complain(error) {
  toast(error.message, { bad: true });
}

export const colourOf = (id) => app.state?.objects.find((object) => object.id === id)?.colour ?? "#ffffff";

// How objects are painted, see paint().
export function look() {
  const { objects } = app.state;
  const colours = [];
  for (const { id, colour } of objects) colours[id] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const opacity = byId("opacity").value / 100;
  const key = JSON.stringify([objects.map((object) => [object.id, object.colour]), [...app.hidden], opacity]);
  return { colours, hidden: app.hidden, opacity, key };
}

export function select(id) {
  app.selected = id;
  app.stage.colour = colourOf(id);
  [...byId("objects").children].forEach((row, i) => row.setAttribute("aria-current", String(app.state.objects[i]?.id === id)));
}

export function readout(x, y, id) {
  const name = app.state?.objects.find((object) => object.id === id)?.name;
  byId("readout").textContent = `x ${x}  y ${y}${name ? `  ${name}` : ""}`;
}
