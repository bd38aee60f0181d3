// What outlives the page: the clip and the frame in its address, and settings in the browser.

// hash: #clip or #clip/frame
export function placeOf(hash) {
  const [clip, frame] = hash.slice(1).split("/");
  return { clip, frame: /^[0-9]+$/.test(frame) ? +frame : null };
}

export function showClipInAddress(clip) {
  if (placeOf(location.hash).clip === clip) return;
  if (location.hash) location.hash = clip; // back leads to the other clip
  else history.replaceState(null, "", `#${clip}`);
}

export function showFrameInAddress(clip, frame) {
  history.replaceState(null, "", `#${clip}/${frame}`);
}

// Browsers may forbid to store anything.
export function remembered(name, storage = "localStorage") {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value, storage = "localStorage") {
  try {
    window[storage].setItem(name, value);
  } catch {
    // the setting ends with the page
  }
}

// Names this tab, also after a reload.
export function tabName() {
  const name = remembered("tab", "sessionStorage") ?? Math.random().toString(36).slice(2);
  remember("tab", name, "sessionStorage");
  return name;
}
