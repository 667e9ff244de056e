print(f"{sum(map(int, input().split())):e}")
