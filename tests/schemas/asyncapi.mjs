// Reads docs/asyncapi.yaml with AsyncAPI's own parser: asyncapi.mjs FOLDER-OF-THE-PARSER FILE
// Prints each example as a line of JSON, with its message's name and schema, for check.py: of version 3, the parser does
// not validate examples. Prints a line for each fault on standard error; exit code 1 if there is one.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [tools, file] = process.argv.slice(2);
const { Parser } = createRequire(pathToFileURL(`${resolve(tools)}/`))('@asyncapi/parser');

const { document, diagnostics } = await new Parser().parse(readFileSync(file, 'utf8'), { source: file });
// Severity 0 is an error, 1 a warning; the rest is advice, such as that of a newer version.
const faults = diagnostics.filter(({ severity }) => severity <= 1);
for (const { code, message, path } of faults) console.error(`${file}: ${path.join('.')}: ${message} (${code})`);
for (const message of document?.messages() ?? []) {
  for (const example of message.examples()) {
    const line = { name: `${message.name()}: ${example.name()}`, schema: message.payload().json(), payload: example.payload() };
    console.log(JSON.stringify(line));
  }
}
process.exit(document && faults.length === 0 ? 0 : 1);
