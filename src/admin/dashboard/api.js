// The admin API. The token is kept in this module's memory only, and is gone with the page.

let token = null;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    Object.assign(this, { status, problem });
  }
}

export class Unreachable extends Error {}

const signIn = document.getElementById("sign-in");
const signOut = document.getElementById("sign-out");
let signingIn = null;

export const isSignedIn = () => token !== null;

signOut.addEventListener("click", () => {
  token = null;
  location.reload();
});

// Asks for a token once, however many requests wait for it.
function askForToken() {
  signingIn ??= new Promise((resolve) => {
    const field = document.getElementById("token");
    field.value = "";
    signIn.showModal();
    signIn.addEventListener("close", () => {
      token = field.value === "" ? null : field.value;
      field.value = "";
      signOut.hidden = token === null;
      signingIn = null;
      resolve();
    }, { once: true });
  });
  return signingIn;
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (token !== null) headers.authorization = `Bearer ${token}`;
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the proxy does not answer");
  }
}

// The response, once there is one that is not 401.
export async function request(path, options = {}) {
  for (;;) {
    const sent = token;
    const response = await send(path, options);
    if (response.status !== 401) {
      if (response.ok) return response;
      const problem = await response.json().catch(() => ({}));
      throw new Refused(response.status, problem);
    }
    if (sent === token) await askForToken();
  }
}

export async function get(path, options) {
  return (await request(path, options)).json();
}

export async function change(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

export const server = (pool, name) => `/api/v1/pools/${encodeURIComponent(pool)}/servers/${encodeURIComponent(name)}`;
export const session = (pool, key) => `/api/v1/sessions/${encodeURIComponent(pool)}/${encodeURIComponent(key)}`;
