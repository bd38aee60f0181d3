// Every control by key. The dialog of keys lists this table.

import { byId } from "./panels.js";

export const KEYS = [
  [" ", "Space", "Play or pause; freeze a live picture, or go on", "play"],
  ["ArrowLeft", "←", "Previous frame; with Shift ten frames", "previous"],
  ["ArrowRight", "→", "Next frame; with Shift ten frames", "next"],
  ["Home", "Home", "First frame", "first"],
  ["End", "End", "Last frame", "last"],
  ["[", "[", "Previous frame that was drawn on", "previousDrawn"],
  ["]", "]", "Next frame that was drawn on", "nextDrawn"],
  ["j", "J", "Next doubtful frame", "nextDoubtful"],
  ["a", "A", "Accept this frame", "accept"],
  ["v", "V", "Move", "move"],
  ["b", "B", "Box", "box"],
  ["p", "P", "Polygon", "polygon"],
  ["s", "S", "Scribble: strokes inside; with Alt outside", "scribble"],
  ["d", "D", "Brush", "brush"],
  ["e", "E", "Eraser", "eraser"],
  [",", ",", "Smaller brush", "smaller"],
  [".", ".", "Larger brush", "larger"],
  ["n", "N", "Add an object", "addObject"],
  ["Delete", "Del", "Delete the chosen object", "removeObject"],
  ["1", "1 to 9", "Choose an object", null],
  ["f", "F", "Track forward", "trackForward"],
  ["r", "R", "Track backward", "trackBackward"],
  ["Escape", "Esc", "Give a stroke up, or stop tracking", "escape"],
  ["z", "Ctrl Z", "Undo; with Shift redo", null],
  ["h", "H", "Show or hide the objects", "toggleOverlay"],
  ["+", "+", "Zoom in", "zoomIn"],
  ["-", "-", "Zoom out", "zoomOut"],
  ["0", "0", "Whole frame", "fit"],
  ["o", "O", "Open", "open"],
  ["i", "I", "Import masks", "import"],
  ["x", "X", "Export", "export"],
  ["?", "?", "This list", "help"],
  ["PageUp", "PageUp PageDown", "Ten frames back or ahead", "tenBack"],
  ["Enter", "Enter", "With a drawing tool, after Tab to the frame: arrows move a crosshair, Enter draws", null],
];

// actions: name -> function(shift); stage: gets the keys of its crosshair first; choose(n): the n-th object
export function listenToKeys(actions, stage, choose) {
  const byKey = Object.fromEntries(KEYS.filter(([, , , name]) => name).map(([key, , , name]) => [key, name]));
  Object.assign(byKey, { "=": "zoomIn", PageDown: "tenAhead" });
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const writes = target.matches?.('input[type="text"], input[type="number"], input[type="search"]');
    if (writes || document.querySelector("dialog[open]")) return;
    const control = (event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph"); // [ is AltGr 8 on some keyboards
    if (event.isComposing) return;
    if (control && event.key.toLowerCase() === "z") actions[event.shiftKey ? "redo" : "undo"]();
    else if (control && event.key.toLowerCase() === "y") actions.redo();
    else if (control) return;
    else if (stage.key(event)) event.stopPropagation();
    else if (target.matches?.('input[type="range"]') && event.key.startsWith("Arrow")) return;
    else if ((event.key === " " || event.key === "Enter") && target.matches?.("button, input")) return;
    else if (/^[1-9]$/.test(event.key)) choose(+event.key - 1);
    else {
      const name = byKey[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!actions[name]) return;
      actions[name](event.shiftKey);
    }
    event.preventDefault();
  });
}

export function showKeys(actions) {
  const rows = KEYS.filter(([, , , name]) => !name || actions[name]).flatMap(([, shown, text]) => {
    const term = document.createElement("dt");
    for (const key of shown.split(" ").filter((part) => part)) {
      term.append(key === "to" ? "to" : Object.assign(document.createElement("kbd"), { textContent: key }));
    }
    return [term, Object.assign(document.createElement("dd"), { textContent: text })];
  });
  byId("key-list").replaceChildren(...rows);
  byId("keys").showModal();
}
