// The list of objects, the frames worth a look, messages, dialogs.

const REASONS = { lost: "lost", soft: "soft edge", far: "far from a check" };

export const byId = (id) => document.getElementById(id);

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function labelled(node, label) {
  node.setAttribute("aria-label", label);
  return node;
}

// New rows for a list. What had the focus keeps it, with what is being typed: rows are known by data-key, controls by their place.
function refill(list, rows) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const row = focused?.closest("[data-key]");
  const place = row ? [...row.querySelectorAll("input, button")].indexOf(focused) : -1;
  const { value, selectionStart, selectionEnd } = focused ?? {};
  const typed = focused?.type === "text" && value !== focused.defaultValue;
  list.replaceChildren(...rows);
  if (!row) return;
  const again = [...list.querySelectorAll("[data-key]")].find((other) => other.dataset.key === row.dataset.key);
  const control = again?.querySelectorAll("input, button")[place];
  if (!control) return;
  if (typed) control.value = value;
  control.focus();
  if (control.type === "text") control.setSelectionRange(selectionStart, selectionEnd);
}

let objectsShown = ""; // to leave the list alone where nothing in it changes: a colour may be chosen in it

// on: {select(id), change(id, {name, colour}), remove(id), toggle(id)}
export function showObjects(state, selected, hidden, on) {
  const content = JSON.stringify([state.objects, selected, [...hidden]]);
  if (content === objectsShown) return;
  objectsShown = content;
  const rows = state.objects.map((object) => {
    const colour = labelled(element("input", { type: "color", value: object.colour }), `Colour of ${object.name}`);
    colour.onchange = () => on.change(object.id, { colour: colour.value });
    const name = labelled(element("input", { type: "text", defaultValue: object.name, maxLength: 100 }), `Name of ${object.name}`);
    name.onfocus = () => on.select(object.id);
    name.onchange = () => on.change(object.id, { name: name.value });
    name.onkeydown = (event) => {
      if (event.key === "Escape") name.value = object.name;
      if (event.key === "Enter" || event.key === "Escape") name.blur();
    };
    const off = hidden.has(object.id);
    const eye = labelled(element("button", {}, icon(off ? "hidden" : "eye")), `${off ? "Show" : "Hide"} ${object.name}`);
    eye.onclick = () => on.toggle(object.id);
    const remove = labelled(element("button", {}, icon("delete")), `Delete ${object.name}`);
    remove.onclick = () => on.remove(object.id);
    const row = element("li", {}, colour, name, eye, remove);
    row.dataset.key = object.id;
    row.setAttribute("aria-current", String(object.id === selected));
    row.toggleAttribute("data-waiting", object.tracked === false);
    row.onclick = () => on.select(object.id);
    return row;
  });
  const none = element("li", { className: "none", textContent: "None yet: choose Box and drag around an object." });
  refill(byId("objects"), rows.length ? rows : [none]);
}

export function showDoubts(state, current, onGo) {
  const named = Object.fromEntries(state.objects.map((object) => [object.id, object]));
  const rows = state.doubts.filter((doubt) => named[doubt.object]).map((doubt) => {
    const object = named[doubt.object];
    const dot = element("span", { className: "dot" });
    dot.style.background = object.colour;
    const why = element("span", { className: "why", textContent: REASONS[doubt.reason] });
    const button = element("button", {}, dot, `Frame ${doubt.frame}`, why);
    labelled(button, `Frame ${doubt.frame}: ${object.name} ${REASONS[doubt.reason]}`);
    button.setAttribute("aria-current", String(doubt.frame === current));
    button.onclick = () => onGo(doubt.frame);
    const row = element("li", {}, button);
    row.dataset.key = doubt.frame;
    return row;
  });
  const tracked = Object.keys(state.measured).length > 0;
  const text = tracked ? "Every doubtful frame was looked at." : "Track an object: the ten most doubtful frames appear here.";
  refill(byId("doubts"), rows.length ? rows : [element("li", { className: "none", textContent: text })]);
}

// Returns what removes it.
export function toast(text, { bad = false, seconds = 6, action = null } = {}) {
  const box = element("div", { className: bad ? "toast bad" : "toast", role: bad ? "alert" : "status" }, element("span", { textContent: text }));
  if (action) {
    const button = element("button", { textContent: action.name });
    button.onclick = () => { action.act(); box.remove(); };
    box.append(button);
  }
  const close = labelled(element("button", { className: "quiet", textContent: "×" }), "Dismiss");
  close.onclick = () => box.remove();
  box.append(close);
  byId("toasts").append(box);
  while (byId("toasts").children.length > 3) byId("toasts").firstChild.remove();
  if (!bad) setTimeout(() => box.remove(), 1000 * seconds);
  return () => box.remove();
}

export function showClips(clips, current, onOpen) {
  const filter = byId("clip-filter");
  const fill = () => {
    const rows = clips.filter((clip) => clip.name.toLowerCase().includes(filter.value.toLowerCase())).map((clip) => {
      const why = element("span", { className: "why", textContent: clip.begun ? "in progress" : "" });
      const button = element("button", { type: "button" }, clip.name, why);
      button.setAttribute("aria-current", String(clip.id === current));
      button.onclick = () => { byId("clips").close(); onOpen(clip.id); };
      return element("li", {}, button);
    });
    byId("clip-list").replaceChildren(...(rows.length ? rows : [element("li", { className: "none", textContent: "No clip has this in its name." })]));
  };
  filter.value = "";
  filter.oninput = fill;
  filter.hidden = clips.length < 8;
  fill();
  byId("clips").showModal();
}

// Returns what tells the user, once, that the connection is lost (false, why), and that it is back (true).
export function linkTeller() {
  let told = null; // [what it said, what takes it away]
  return (up, why) => {
    if (up && told) toast("The server is back.");
    if (up || told?.[0] !== why) told?.[1]();
    if (up) told = null;
    else if (told?.[0] !== why) told = [why, toast(why, { bad: true })];
  };
}
