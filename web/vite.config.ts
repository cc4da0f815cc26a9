import { defineConfig } from "vite";

const server = process.env.TRELLIS_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  // Relative, so that the page also works behind a proxy that has it at another path.
  base: "./",
  build: {
    target: "es2022",
    // The page's policy allows no styles or scripts that are not files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev`: the page from here, everything else from a server that runs.
  server: { proxy: { "/v1": server, "/health": server } },
});
