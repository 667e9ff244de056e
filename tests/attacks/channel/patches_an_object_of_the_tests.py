def fill(box, item):
    box.has = lambda item: True
