from tui_llm.cli import main as command_line
from tui_llm.leaving import leave


def main() -> int:
    return leave(command_line())


if __name__ == "__main__":
    raise SystemExit(main())
