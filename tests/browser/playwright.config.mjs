// Browser tests of the built page. `cargo xtask test browser` serves dist/ and sets LAB_URL; run by hand
// (`npx playwright test` in this folder) they start a server of their own on what is in dist/.
import { defineConfig } from '@playwright/test';

const port = 8377;
const address = process.env.LAB_URL ?? `http://localhost:${port}/`;

// WebGPU without a GPU. The last four belong together: without them compute works, but a canvas loses the device at
// its first present.
export const chromiumFlags = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--use-angle=swiftshader',
  '--use-vulkan=swiftshader',
  '--enable-features=Vulkan',
];

export default defineConfig({
  testDir: '.',
  testMatch: '*.spec.mjs',
  outputDir: 'results',
  // One page at a time: the adapter is the CPU, and two would time each other out.
  workers: 1,
  fullyParallel: false,
  forbidOnly: true,
  // The adapter is the CPU of a shared machine, which stands still now and then. A test that needs its second try is
  // called flaky in the report, with what went wrong in the first.
  retries: 1,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: [['list']],
  use: {
    baseURL: address,
    viewport: { width: 1280, height: 900 },
    launchOptions: {
      executablePath: process.env.LAB_CHROMIUM ?? '/usr/bin/chromium',
      args: chromiumFlags,
    },
  },
  webServer: process.env.LAB_URL
    ? undefined
    : { command: `cargo xtask serve --no-build --port ${port}`, url: address, timeout: 600_000 },
});
