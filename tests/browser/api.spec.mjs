// The JavaScript API in a page without the lab's interface, on both back ends.
import { test, expect } from './lab.mjs';

// A page of the same origin that loads nothing of the lab by itself.
const PLACE = 'icon.svg';

for (const backend of ['cpu', 'gpu']) {
  test(`the API computes, reads and times on the ${backend}`, async ({ page }) => {
    await page.goto(PLACE);
    const found = await page.evaluate(async (backend) => {
      const { Lab } = await import(new URL('attention-lab.js', location.href));
      const lab = await Lab.create({ backend });
      const numbers = (count, step) => Float32Array.from({ length: count }, (_, i) => ((i * step) % 17) / 8 - 1);
      const [m, n, k] = [7, 20, 12];
      const product = await lab.prepareOp('matmul', { m, n, k });
      const [a, b] = [numbers(m * k, 5), numbers(k * n, 7)];
      product.write({ a, b });
      await product.execute();
      const { c } = await product.read(['c']);
      let worst = 0;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let p = 0; p < k; p++) sum += a[i * k + p] * b[p * n + j];
          worst = Math.max(worst, Math.abs(sum - c[i * n + j]));
        }
      }
      // Equal scores: every output row is the mean of the values.
      const [length, dim] = [33, 16];
      const full = await lab.prepare({ variant: 'full', length, dim });
      const v = numbers(length * dim, 3);
      full.write({ q: new Float32Array(length * dim), k: numbers(length * dim, 11), v });
      await full.execute();
      const { out } = await full.read();
      let off = 0;
      for (let d = 0; d < dim; d++) {
        let mean = 0;
        for (let i = 0; i < length; i++) mean += v[i * dim + d] / length;
        for (let i = 0; i < length; i++) off = Math.max(off, Math.abs(out[i * dim + d] - mean));
      }
      const time = await product.time({ spans: 3 });
      const facts = { bytes: full.bytes, flops: full.flops, inputs: full.inputs.map((t) => t.name) };
      product.free();
      full.free();
      return { info: lab.info, variants: lab.variants().map((x) => x.id), worst, off, count: c.length, time, facts };
    }, backend);
    expect(found.info.backend).toBe(backend);
    expect(found.info.adapter.name).not.toBe('');
    expect(found.variants).toContain('linformer');
    expect(found.count).toBe(140);
    expect(found.worst).toBeLessThan(1e-5);
    expect(found.off).toBeLessThan(1e-5);
    expect(found.time.median).toBeGreaterThan(0);
    expect(found.time.repeats).toBe(3);
    expect(found.facts.flops).toBeGreaterThan(0);
    expect(found.facts.bytes).toBeGreaterThanOrEqual(4 * 4 * 33 * 16);
    expect(found.facts.inputs).toEqual(['k', 'q', 'v']);
  });
}

test('the API says what it cannot serve, and why', async ({ page }) => {
  await page.goto(PLACE);
  const errors = await page.evaluate(async () => {
    const { Lab, LabError } = await import(new URL('attention-lab.js', location.href));
    const lab = await Lab.create({ backend: 'cpu' });
    const run = await lab.prepareOp('softmax', { rows: 2, cols: 3 });
    const calls = [
      () => Lab.create({ backend: 'abacus' }),
      () => lab.prepare({ variant: 'no_such', length: 8 }),
      () => lab.prepare({ variant: 'full_naive', length: 1_000_000 }),
      () => lab.prepareOp('matmul', { m: 1, n: 2 }),
      () => run.write({ x: new Float32Array(5) }),
      () => run.write({ x: [1, 2, 3, 4, 5, 6] }),
      () => run.execute(),
    ];
    const errors = [];
    for (const call of calls) {
      try {
        await call();
        errors.push(null);
      } catch (error) {
        errors.push({ known: error instanceof LabError, code: error.code, nearest: error.nearest });
      }
    }
    return errors;
  });
  expect(errors.every((error) => error?.known)).toBe(true);
  expect(errors.map((error) => error.code)).toEqual(['invalid', 'invalid', 'refused', ...Array(4).fill('invalid')]);
  expect(errors[2].nearest).toContain('length');
});

test('kernels are raced once, and what was found is taken again', async ({ page }) => {
  await page.goto(PLACE);
  const found = await page.evaluate(async () => {
    const { Lab } = await import(new URL('attention-lab.js', location.href));
    const lab = await Lab.create({ backend: 'gpu' });
    const run = await lab.prepareOp('matmul', { m: 32, n: 32, k: 32 });
    const first = await lab.tune(run);
    const again = await lab.tune(run, JSON.parse(JSON.stringify(first)));
    const other = await lab.tune(run, { ...first, adapter: 'another machine' });
    // What is prepared from now on uses the choice, and is still right.
    const tuned = await lab.prepareOp('matmul', { m: 32, n: 32, k: 32 });
    tuned.write({ a: new Float32Array(1024).fill(0.5), b: new Float32Array(1024).fill(2) });
    await tuned.execute();
    const { c } = await tuned.read();
    return { first, again, other, c: [c[0], c[1023]] };
  });
  const classes = Object.values(found.first.classes);
  expect(classes.length).toBeGreaterThan(0);
  for (const { choice, figures } of classes) {
    expect(figures.length).toBeGreaterThan(1);
    expect(figures.every((figure) => figure.ms > 0)).toBe(true);
    const best = figures.reduce((a, b) => (a.ms <= b.ms ? a : b));
    expect(choice).toBe(best.candidate);
  }
  expect(found.again).toEqual(found.first);
  expect(found.other.adapter).toBe(found.first.adapter);
  expect(Object.keys(found.other.classes)).toEqual(Object.keys(found.first.classes));
  expect(found.c).toEqual([32, 32]);
});

test('the page keeps what it measured of its kernels for the next visit', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full_naive&n=16&heads=1&dim=8&view=mask');
  const kept = () => page.evaluate(() => JSON.parse(localStorage.getItem('attention-lab.kernels') ?? 'null'));
  expect(await kept()).toBe(null);
  await page.locator('#use-gpu').click({ timeout: 30_000 });
  const classes = async () => Object.keys((await kept())?.classes ?? {}).sort();
  await expect.poll(classes, { timeout: 90_000 }).toEqual(expect.arrayContaining([expect.stringContaining('matmul/nt/'), expect.stringContaining('matmul/nn/')]));
  // Nothing more comes for a while: all is measured.
  let before;
  do {
    before = JSON.stringify(await kept());
    await page.waitForTimeout(2000);
  } while (JSON.stringify(await kept()) !== before);
  await page.reload();
  await page.locator('#use-gpu').click({ timeout: 30_000 });
  await expect(page.locator('.colophon')).toContainText('webgpu', { timeout: 30_000 });
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
  await page.waitForTimeout(4000);
  expect(JSON.stringify(await kept()), 'a second race would have other figures').toBe(before);
});

test('a mask or a rule of one\'s own is taken', async ({ page }) => {
  await page.goto(PLACE);
  const found = await page.evaluate(async () => {
    const { Lab } = await import(new URL('attention-lab.js', location.href));
    const lab = await Lab.create({ backend: 'cpu' });
    const [length, dim] = [20, 4];
    const numbers = (step) => Float32Array.from({ length: length * dim }, (_, i) => ((i * step) % 17) / 8 - 1);
    const tokens = { q: numbers(5), k: numbers(7), v: numbers(3) };
    const output = async (request) => {
      const run = await lab.prepare({ variant: 'custom', length, dim, ...request });
      run.write(tokens);
      await run.execute();
      const { out } = await run.read(['out']);
      run.free();
      return [...out];
    };
    const mask = Uint8Array.from({ length: length * length }, (_, at) => Number(Math.abs(Math.floor(at / length) - (at % length)) < 3));
    const refused = await output({ tensors: { mask: mask.slice(1) } }).catch((error) => [error.code, error.message]);
    return { mask: await output({ tensors: { mask } }), rule: await output({ params: { rule: 'abs(i - j) < 3' } }), usual: await output({}), refused };
  });
  expect(found.mask).toEqual(found.rule);
  expect(found.mask).not.toEqual(found.usual);
  expect(found.refused[0]).toBe('invalid');
  expect(found.refused[1]).toContain('399 numbers');
});

test('the API trains', async ({ page }) => {
  await page.goto(PLACE);
  const found = await page.evaluate(async () => {
    const { Lab } = await import(new URL('attention-lab.js', location.href));
    const lab = await Lab.create({ backend: 'cpu' });
    const task = { id: 'copy', symbols: 5, items: 4 };
    const run = await lab.prepareTraining({ task, model: { d_model: 16, heads: 2 }, optimiser: { rate: 0.01 }, batch: 8, steps: 60 });
    const first = await run.step();
    const last = await run.step(59);
    const judged = await run.evaluate();
    const file = await run.save();
    const refused = await lab.prepareTraining({ task, model: { heads: 3 } }).catch(({ code, message, nearest }) => ({ code, message, nearest }));
    const { bytes, flops, weights, config } = run;
    run.free();
    return { first, last, judged, refused, bytes, flops, weights, length: config.model.length, saved: file.length };
  });
  expect([found.first.step, found.last.step, found.judged.step]).toEqual([1, 60, 60]);
  expect(found.last.loss).toBeLessThan(found.first.loss);
  expect(found.judged.score.tokens.judged).toBeGreaterThan(0);
  expect(Math.min(found.bytes, found.flops)).toBeGreaterThan(1000);
  expect(found.length).toBe(10);
  // Weights and two memories of the optimiser.
  expect(found.saved).toBeGreaterThan(3 * 4 * found.weights);
  expect(found.refused).toMatchObject({ code: 'refused', nearest: expect.stringContaining('divisor') });
});
