print(" \t\r\n\x0b\x0c\n")
