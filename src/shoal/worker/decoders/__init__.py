"""Where a picture is decoded: in place, on a thread, or in a process of its own."""
