// Where the browser keeps runs between visits: one IndexedDB store of bytes by name, for the page and its worker. The wasm
// module calls these by name.
const opened = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open('attention-lab', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('shelf');
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another window holds the store'));
  });

async function within(mode, work) {
  const store = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = store.transaction('shelf', mode, { durability: 'relaxed' });
      let problem, request;
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = (event) => (problem ??= event.target.error);
      transaction.onabort = () => reject(transaction.error ?? problem ?? new Error('not kept'));
      try {
        request = work(transaction.objectStore('shelf'));
      } catch (error) {
        // All or none: what was put before it is taken back.
        problem = error;
        transaction.abort();
      }
    });
  } finally {
    store.close();
  }
}

// The lock of whoever keeps runs, and what gives it back.
const KEEPER = 'attention-lab-runs';
let letGo;

// Holds the lock from now on, or calls `otherwise`; resolves with which it was.
const held = (otherwise) =>
  new Promise((resolve) => {
    // Where there are no locks one cannot know of others.
    if (!navigator.locks) return resolve(true);
    const taken = (lock) => {
      resolve(Boolean(lock));
      if (lock) return new Promise((end) => (letGo = end));
      otherwise();
    };
    navigator.locks.request(KEEPER, { ifAvailable: true }, taken).catch(() => resolve(true));
  });

// A tab that is gone may only be loaded anew: then it comes first.
const PATIENCE_MS = 4000;

async function comeAfter(granted) {
  await navigator.locks.request(KEEPER, () => {});
  await new Promise((later) => setTimeout(later, PATIENCE_MS));
  if (await held(() => comeAfter(granted))) granted();
}

globalThis.attentionLabShelf = {
  // The bytes of a file beside this module.
  async bytes(path) {
    const response = await fetch(new URL(path, import.meta.url));
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.arrayBuffer();
  },
  // All of these or none: [[name, Uint8Array], ...].
  put: (entries) => within('readwrite', (shelf) => entries.map(([name, bytes]) => shelf.put(bytes, name)).at(-1)),
  // Uint8Array, or undefined where there is none.
  get: (name) => within('readonly', (shelf) => shelf.get(name)),
  // Whether this worker may keep runs from now on, as one does at a time in all tabs; it may until it gives this back, or
  // ends. Where another does, `granted` is called when it is this one's turn.
  claim: (granted) => held(() => comeAfter(granted)),
  giveBack: () => letGo?.(),
  // An address of bytes, for the page to save: no room is needed on the shelf.
  offer: (bytes) => URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' })),
  // The bytes at an address that the page has made of a file.
  async take(from) {
    const response = await fetch(from);
    const bytes = await response.arrayBuffer();
    URL.revokeObjectURL(from);
    return bytes;
  },
};
