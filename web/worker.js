// The engine's worker: the same wasm module as the page, another entry point. Messages that come before the module is
// ready are kept by the browser only once a listener exists, so one is set first and what it gets is handed on.
import init, { worker_main } from './attention_lab.js';
import './shelf.js';

const early = [];
self.onmessage = (event) => early.push(event);
init().then(
  () => {
    self.onmessage = null;
    worker_main();
    for (const event of early) self.onmessage(event);
  },
  (error) => self.postMessage(JSON.stringify({ type: 'failed', reason: String(error) })),
);
