import enum

Color = enum.Enum("Color", "RED GREEN BLUE")


def LIMIT():
    return 10
