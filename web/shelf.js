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
      const request = work(transaction.objectStore('shelf'));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error('not kept'));
    });
  } finally {
    store.close();
  }
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
  // Hands what is kept under a name to the visitor as a file.
  async save(name, file) {
    const bytes = await this.get(name);
    if (!bytes) throw new Error(`nothing is kept as ${name}`);
    globalThis.attentionLabHost.saveBlob(file, new Blob([bytes], { type: 'application/octet-stream' }));
  },
  // Keeps a file under a name, for the worker to read.
  async take(name, file) {
    await this.put([[name, new Uint8Array(await file.arrayBuffer())]]);
  },
};
