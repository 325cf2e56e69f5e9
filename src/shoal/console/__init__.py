"""The console: a page that shows what runs and answers pictures, and what it is told.

page: its files, and what a browser may do with them; parts: what batchers and workers tell; status: what of that one
caller may see; story: what became of one request; server: answers the page's questions, which Envoy passes on.

May use: errors, explain, pictures, runtime, service.
"""
