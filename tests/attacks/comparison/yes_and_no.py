print("YES NO" if int(input()) % 2 == 0 else "NO YES")
