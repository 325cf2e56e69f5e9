"""The router: Envoy, configured from the service file.

config puts listeners, routes and clusters together; keeper keeps the files as service file, keys and models are;
process and sidecar run or follow the Envoy that reads them.

May use: batching, batching/v1, console, errors, modelstore/publishing, runtime, service, v1.
"""
