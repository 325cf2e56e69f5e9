// The lines that repeat a call. The key is $KEY in them and a token $TOKEN, never the text itself.

const METHODS = { classify: "Classify", detect: "Detect", segment: "Segment" };

/** @param call {origin, model, verb, uuid, byToken} @returns [what, line] each */
export function commands({ origin, model, verb, uuid, byToken }) {
  const header = byToken ? '"authorization: Bearer $TOKEN"' : '"x-api-key: $KEY"';
  const { host, protocol } = new URL(origin);
  const target = protocol === "https:" ? origin : host;
  const path = `/v1/models/${encodeURIComponent(model)}:${verb}`;
  const body = JSON.stringify({ image_uuid: uuid });
  const python = [
    "import os, shoal.client",
    `with shoal.client.Client(${JSON.stringify(target)}, ${byToken ? 'token=os.environ["TOKEN"]' : 'api_key=os.environ["KEY"]'}) as client:`,
    `    print(client.${verb}(${JSON.stringify(uuid)}, ${JSON.stringify(model)}))`,
  ].join("\n");
  const key = byToken ? {} : { api_key: "$KEY" };
  const message = JSON.stringify({ ...key, image_uuid: uuid, model_name: model });
  const grpcurl = [
    `grpcurl${protocol === "https:" ? "" : " -plaintext"} -H ${header} -H ${quoted(`x-model-name: ${model}`)}`,
    `  -d ${quoted(message).replace("$KEY", `'"$KEY"'`)}`,
    `  ${host.includes(":") || protocol !== "https:" ? host : `${host}:443`} shoal.v1.Inference/${METHODS[verb]}`,
  ].join(" \\\n");
  return [
    ["curl", `curl -s ${quoted(origin + path)} -H ${header} --json ${quoted(body)}`],
    ["Python", python],
    ["grpcurl", grpcurl],
  ];
}

/** A word of a POSIX shell, whatever is in it. */
export function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
