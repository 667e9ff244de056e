print("\u03a5\u0395\u0405" if int(input()) % 2 == 0 else "\u039d\u039e")
