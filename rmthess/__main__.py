from rmthess.cli import main

main()
