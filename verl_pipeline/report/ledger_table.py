def show_ledger(run):
    return {"ledger": [], "ledger_notes": []}
