raise ImportError("it was never to be")
