// Asks about a stored picture by gRPC-Web:  node grpc_web.mjs http://localhost:8080 KEY MODEL UUID
// Its packages and gen/: see README.md.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Inference } from "./gen/shoal/v1/inference_pb.js";

const [baseUrl, key, model, uuid] = process.argv.slice(2);
const client = createClient(Inference, createGrpcWebTransport({ baseUrl }));
const headers = { "x-api-key": key, "x-model-name": model };
const reply = await client.classify({ apiKey: key, imageUuid: uuid, modelName: model }, { headers, timeoutMs: 5000 });
for (const { label, probability } of reply.classes) console.log(`${label} ${probability.toFixed(2)}`);
