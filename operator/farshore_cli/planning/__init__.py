"""`farshore plan`: what the operator would do if some manifests were applied, by the operator's own decisions.

`manifests` reads a tree, `cluster` asks the API server, `future` puts both together, `preview` decides, `render`
prints.
"""
