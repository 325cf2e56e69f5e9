"""What a picture is: its name in the store, its header, its pixels, a mask of them."""
