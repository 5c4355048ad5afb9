// The server's API: one request, or a stream of events.

export class Failed extends Error {}

async function failure(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: the status says all there is */ }
  const after = response.headers.get("retry-after");
  return new Failed(response.status === 401 ? "The server wants an API key: give it in the settings." : after ? `${message} (in ${after} s)` : message);
}

export async function get(path, key) {
  const response = await fetch(path, { headers: key ? { authorization: `Bearer ${key}` } : {} });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Calls `on(chunk)` for every chunk of an answer until its end, or until `signal` ends it.
export async function stream(path, body, key, signal, on) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { method: "POST", headers, signal, body: JSON.stringify({ ...body, stream: true }) });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Failed("The connection ended before the answer did.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failed(chunk.error.message);
      on(chunk);
    }
  }
}
