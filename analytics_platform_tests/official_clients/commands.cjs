// The loop both Node scripts run: one command a line in, one answer a line out.
//
// Belongs here: the line protocol of `official_client.py`. Does not belong here: any client. A command is
// {"call": name, "arguments": [...]}; an answer is {"value": ...} or {"error": {"name", "code", "message"}}. Answers
// are in the order of the commands. When standard input ends, so does the process.
"use strict";

const readline = require("node:readline");

async function serve(perform) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { call, arguments: given } = JSON.parse(line);
    let answer;
    try {
      answer = { value: (await perform(call, given)) ?? null };
    } catch (error) {
      answer = { error: { name: error.name, code: error.code ?? error.type ?? null, message: error.message } };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0);
}

module.exports = { serve };
