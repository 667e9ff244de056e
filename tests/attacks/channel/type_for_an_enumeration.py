LIMIT = 10
Color = bool
