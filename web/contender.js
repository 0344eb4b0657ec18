// The lab as a contender in a race of libraries: sets `globalThis.contender`, on top of the public API alone.
//
// A race calls init, upload, matmul / attention / softmax / layernorm, sync, download and free. Add `?backend=cpu` to the
// module's address for the CPU back end. Each shape is prepared once; inputs stay on the device between calls.
import { Lab } from './attention-lab.js';

const backend = new URL(import.meta.url).searchParams.get('backend') ?? 'gpu';
let lab;
const prepared = new Map();

/// Runs what `make` prepares for `key`, with these tensors: written only when they are others than the last time.
function queue(key, make, tensors, output) {
  const known = prepared.get(key);
  if (known instanceof Promise) return known.then(() => queue(key, make, tensors, output));
  if (!known) {
    const making = make().then((run) => prepared.set(key, { run, inputs: {} }));
    prepared.set(key, making);
    return making.then(() => queue(key, make, tensors, output));
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    if (known.inputs[name] === tensor) continue;
    known.run.write({ [name]: tensor.data });
    known.inputs[name] = tensor;
  }
  known.run.submit();
  known.result ??= { run: known.run, output };
  return known.result;
}

globalThis.contender = {
  name: backend === 'cpu' ? 'attention-lab-cpu' : 'attention-lab',
  version: '0.1.0',
  async init() {
    lab = await Lab.create({ backend });
  },
  upload: (data, shape) => ({ data, shape }),
  download: async ({ run, output }) => (await run.read([output]))[output],
  sync: () => lab.wait(),
  free(handle) {
    if (!handle.run) return;
    handle.run.free();
    for (const [key, known] of prepared) if (known.run === handle.run) prepared.delete(key);
  },
  matmul: (a, b, m, n, k) => queue(`matmul ${m} ${n} ${k}`, () => lab.prepareOp('matmul', { m, n, k }), { a, b }, 'c'),
  attention: (q, k, v, { B, H, N, D, causal }) =>
    queue(
      `attention ${B} ${H} ${N} ${D} ${causal}`,
      () => lab.prepare({ variant: 'full', causal, batch: B, heads: H, length: N, dim: D }),
      { q, k, v },
      'out',
    ),
  softmax: (x, rows, cols) => queue(`softmax ${rows} ${cols}`, () => lab.prepareOp('softmax', { rows, cols }), { x }, 'y'),
  layernorm: (x, gain, bias, rows, cols, epsilon) =>
    queue(
      `layernorm ${rows} ${cols}`,
      () => lab.prepareOp('layernorm', { rows, cols, epsilon }),
      { x, gain, bias },
      'y',
    ),
};
