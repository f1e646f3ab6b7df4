// Compiles contracts/src into contracts/artifacts; with --check it writes nothing and fails where they differ.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const solc = require("solc");
const here = path.dirname(fileURLToPath(import.meta.url));
const sourceRoot = path.join(here, "src");
const artifactRoot = path.join(here, "artifacts");
const check = process.argv.includes("--check");

const fail = (message) => {
  console.error(message);
  process.exit(1);
};

const sourceFiles = (folder) =>
  fs
    .readdirSync(path.join(sourceRoot, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const name = path.posix.join(folder, entry.name);
      return entry.isDirectory() ? sourceFiles(name) : name.endsWith(".sol") ? [name] : [];
    })
    .sort();

const read = (file) => {
  try {
    return { contents: fs.readFileSync(require.resolve(file), "utf8") };
  } catch {
    return { error: `cannot find ${file}` };
  }
};

const files = sourceFiles("");
const input = {
  language: "Solidity",
  sources: Object.fromEntries(
    files.map((name) => [name, { content: fs.readFileSync(path.join(sourceRoot, name), "utf8") }]),
  ),
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    viaIR: true,
    // No metadata hash: the bytecode depends on the code alone, so that anybody's build reproduces it.
    metadata: { bytecodeHash: "none" },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: read }));
const problems = (output.errors ?? []).map((problem) => problem.formattedMessage);
if (problems.length > 0) fail(problems.join("\n"));

const artifacts = new Map();
for (const name of files) {
  for (const [contractName, contract] of Object.entries(output.contracts[name] ?? {})) {
    if (contract.evm.bytecode.object === "") continue;
    if (name !== "SwapLib.sol") {
      const artifact = {
        contractName,
        source: name,
        compiler: solc.version().split(".Emscripten")[0],
        abi: contract.abi,
        bytecode: `0x${contract.evm.bytecode.object}`,
        deployedBytecode: `0x${contract.evm.deployedBytecode.object}`,
      };
      artifacts.set(`${contractName}.json`, `${JSON.stringify(artifact, null, 1)}\n`);
    }
  }
}

const present = fs.existsSync(artifactRoot) ? fs.readdirSync(artifactRoot) : [];
if (check) {
  const stale = [...artifacts].filter(
    ([name, text]) => !present.includes(name) || fs.readFileSync(path.join(artifactRoot, name), "utf8") !== text,
  );
  const left = present.filter((name) => !artifacts.has(name));
  if (stale.length + left.length > 0) {
    fail(`artifacts differ from the sources: ${[...stale.map(([name]) => name), ...left].join(", ")}; run "make contracts"`);
  }
  console.log(`${artifacts.size} artifacts match their sources`);
} else {
  fs.mkdirSync(artifactRoot, { recursive: true });
  for (const name of present.filter((file) => !artifacts.has(file))) fs.rmSync(path.join(artifactRoot, name));
  for (const [name, text] of artifacts) fs.writeFileSync(path.join(artifactRoot, name), text);
  console.log(`${artifacts.size} artifacts written`);
}
