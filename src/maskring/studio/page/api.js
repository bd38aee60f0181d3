// Talks to the server. Addresses are relative, so they carry the token of the page's own address.

async function answer(response) {
  const type = response.headers.get("content-type") ?? "";
  const body = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(body.error || `The server answers with ${response.status}.`);
  return body;
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer; start maskring studio again and open the address that it prints.");
  }
  return response;
}

export const getJson = async (address) => answer(await ask(address));

export const post = async (address, body = {}) =>
  answer(await ask(address, { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body) }));

export async function getBytes(address) {
  const response = await ask(address);
  if (!response.ok) await answer(response);
  return new Uint8Array(await response.arrayBuffer());
}

// urgent: before what others have asked for
export async function getBitmap(address, options, urgent = true) {
  const response = await ask(address, { priority: urgent ? "auto" : "low" });
  if (!response.ok) await answer(response);
  return createImageBitmap(await response.blob(), options);
}

const REFUSED = "Another maskring studio answers here now; open the address that it printed.";

// Whether a server answers under this page's address but does not know its token: it was started anew.
const isRefused = () => fetch("clips").then(({ status }) => status === 403, () => false);

// Calls onNews with each message, onLink(true or false, why not) when the connection comes and goes, and onData with binary messages.
export function listen(address, onNews, onLink, onData = () => {}) {
  let socket;
  let closed = false;
  const connect = () => {
    const url = new URL(address, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => onLink(true);
    socket.onmessage = ({ data }) => (typeof data === "string" ? onNews(JSON.parse(data)) : onData(data));
    socket.onclose = async () => {
      if (closed) return;
      onLink(false, "The server does not answer; what was saved is safe. This page goes on when it is back.");
      if (await isRefused()) return onLink(false, REFUSED);
      setTimeout(() => closed || connect(), 1000);
    };
  };
  connect();
  return {
    send(value) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
    },
    close() {
      closed = true;
      socket.close();
    },
  };
}
