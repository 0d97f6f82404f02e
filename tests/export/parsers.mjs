// Read a file of settings as a program does: node parsers.mjs PROGRAM FILE, beside node_modules.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [program, file] = process.argv.slice(2);
const load = createRequire(join(process.cwd(), "parsers.js"));
const text = readFileSync(file, "utf8");

function readContinue() {
  const { configYamlSchema, validateConfigYaml } = load("@continuedev/config-yaml");
  const parsed = configYamlSchema.parse(load("yaml").parse(text));
  return [parsed.models.map((each) => each.defaultCompletionOptions), validateConfigYaml(parsed)];
}

function readLmStudio() {
  const { kvConfigSchema } = load("@lmstudio/lms-shared-types");
  const { llmLlamaLoadConfigSchematics } = load("@lmstudio/lms-kv-config");
  const fields = kvConfigSchema.parse(JSON.parse(text).load);
  return llmLlamaLoadConfigSchematics.parsePartial(fields).get("contextLength");
}

async function readCline() {
  const main = load.resolve.paths("")[0];
  const cline = await import(join(main, "@cline", "core", "dist", "index.js"));
  const { providers } = cline.StoredProviderSettingsSchema.parse(JSON.parse(text));
  return Object.values(providers).map((each) => each.settings.contextWindow);
}

const read = { continue: readContinue, lmstudio: readLmStudio, cline: readCline }[program];
console.log(JSON.stringify(await read()));
