// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {AllowanceHolder} from "./AllowanceHolder.sol";
import {Escrow} from "./Escrow.sol";
import {IFillVerifier} from "./IFillVerifier.sol";
import {Swap, SwapLib} from "./SwapLib.sol";

/// @title Settlement
/// @notice Settles batches of signed swaps and checks every signed limit again.
/// @dev Solvers are allow-listed by the owner but not trusted with anybody's tokens: whatever interactions they
/// choose, an owner pays at most what was signed and the receiver is paid at least what was signed, or everything
/// reverts. Owners approve the {AllowanceHolder}; this contract holds no standing approvals and, between two
/// settlements, no balances. All amounts are in the token's smallest unit; roundings go against the solver.
contract Settlement is Ownable2Step, ReentrancyGuard, EIP712 {
    using SafeERC20 for IERC20;
    using SwapLib for Swap;

    /// @notice One fill of one signed swap.
    /// @param swap The order.
    /// @param signature 65 bytes of an EOA, or whatever the owner's ERC-1271 wallet accepts.
    /// @param sellFill Amount pulled from the owner.
    /// @param buyFill Amount paid to the receiver, net of the fee.
    /// @param fee Amount of the bought token that the solver kept for gas. Checked against the signed cap.
    /// @param filledBefore What the solver believes to be filled already. A fill by somebody else in between changes
    /// the id of the escrow, so the solver would pay for a lock that does not exist.
    struct Trade {
        Swap swap;
        bytes signature;
        uint256 sellFill;
        uint256 buyFill;
        uint256 fee;
        uint256 filledBefore;
    }

    /// @notice Tokens that the solver brings along.
    struct Funding {
        IERC20 token;
        uint256 amount;
    }

    /// @notice One call of the solver's plan; `approveToken` may be zero for none.
    struct Interaction {
        address target;
        bytes data;
        IERC20 approveToken;
        uint256 approveAmount;
    }

    /// @notice Payment, on this chain, of an order whose sold tokens are in escrow on another.
    struct CrossFill {
        bytes32 orderId;
        IERC20 token;
        address receiver;
        uint256 amount;
        uint64 fillDeadline;
    }

    /// @notice Least seconds between the last fill and the first refund of a cross-chain order.
    uint64 public constant MIN_CLAIM_WINDOW = 600;

    /// @notice What owners, and solvers for their funding, approve.
    AllowanceHolder public immutable holder;

    /// @notice Where the sold tokens of cross-chain orders wait.
    Escrow public immutable escrow;

    /// @notice Receives what is swept after a settlement.
    address public feeRecipient;

    /// @notice Who may settle.
    mapping(address solver => bool) public isSolver;

    /// @notice Filled part of an order: sold amount of exactIn, bought amount of exactOut.
    mapping(bytes32 digest => uint256) public filled;

    /// @notice Orders that their owners revoked on chain.
    mapping(address owner => mapping(bytes32 digest => bool)) public cancelled;

    /// @notice Batches that a solver settled; each once.
    /// @dev Per solver: another one cannot use up an id that it saw on its way.
    mapping(address solver => mapping(bytes32 batchId => bool)) public settledBatches;

    /// @notice Payments made here for orders of other chains, by fill hash.
    /// @dev Keyed by the hash of the whole payment, not by the order: a wrong payment of an order cannot block the
    /// right one.
    mapping(bytes32 fillHash => bool) public fills;

    event SolverSet(address indexed solver, bool allowed);
    event FeeRecipientSet(address indexed feeRecipient);
    event Filled(
        bytes32 indexed digest,
        address indexed owner,
        bytes32 indexed batchId,
        uint256 sellFill,
        uint256 buyFill,
        uint256 fee
    );
    event CrossFilled(
        bytes32 indexed orderId, bytes32 fillHash, address indexed receiver, address token, uint256 amount
    );
    event Settled(bytes32 indexed batchId, address indexed solver);
    event Cancelled(bytes32 indexed digest, address indexed owner);

    error InvalidFeeRecipient(address feeRecipient);
    error NotSolver(address caller);
    error BundleExpired(uint256 deadline);
    error BatchAlreadySettled(bytes32 batchId);
    error WrongChain(bytes32 digest, uint256 sellChain);
    error Unsupported(bytes32 digest);
    error InvalidAddress(bytes32 digest);
    error OutsideValidity(bytes32 digest);
    error BadTimes(bytes32 digest);
    error BadSignature(bytes32 digest);
    error OrderCancelled(bytes32 digest);
    error NothingFilled(bytes32 digest);
    error FilledElsewhere(bytes32 digest, uint256 filled);
    error Overfilled(bytes32 digest);
    error PartialFillForbidden(bytes32 digest);
    error LimitViolated(bytes32 digest);
    error FeeAboveCap(bytes32 digest);
    error SoldTokenShort(bytes32 digest, uint256 received);
    error BoughtTokenShort(bytes32 digest, uint256 received);
    error ForbiddenTarget(address target);
    error ForbiddenCall(bytes4 selector);
    error FillTooLate(bytes32 orderId);
    error AlreadyFilled(bytes32 orderId);

    /// @notice Deploys the holder and the escrow that belong to this settlement.
    /// @param owner_ Sets solvers and the fee recipient; can touch nobody's tokens.
    /// @param feeRecipient_ Receives dust.
    /// @param verifier Judge of cross-chain fills.
    constructor(address owner_, address feeRecipient_, IFillVerifier verifier) Ownable(owner_) EIP712("Thalweg", "1") {
        holder = new AllowanceHolder();
        escrow = new Escrow(verifier);
        _setFeeRecipient(feeRecipient_);
    }

    /// @notice Allows or forbids a solver.
    function setSolver(address solver, bool allowed) external onlyOwner {
        isSolver[solver] = allowed;
        emit SolverSet(solver, allowed);
    }

    /// @notice Changes where dust goes.
    function setFeeRecipient(address feeRecipient_) external onlyOwner {
        _setFeeRecipient(feeRecipient_);
    }

    /// @notice Revokes an order of the caller. Orders of others are not affected.
    function cancel(bytes32 digest) external {
        cancelled[msg.sender][digest] = true;
        emit Cancelled(digest, msg.sender);
    }

    /// @notice Settles a batch: all of it or nothing.
    /// @param batchId Any id that the caller has not used before; makes a second sending of the same bundle fail.
    /// @param deadline Last second at which this bundle may run.
    /// @param trades Fills of orders of this chain.
    /// @param funding Tokens pulled from the solver.
    /// @param interactions Calls that turn what was pulled into what is paid.
    /// @param crossFills Payments of orders of other chains.
    /// @param sweep Tokens whose whole remaining balance goes to the fee recipient.
    function settle(
        bytes32 batchId,
        uint256 deadline,
        Trade[] calldata trades,
        Funding[] calldata funding,
        Interaction[] calldata interactions,
        CrossFill[] calldata crossFills,
        address[] calldata sweep
    ) external nonReentrant {
        if (!isSolver[msg.sender]) revert NotSolver(msg.sender);
        if (block.timestamp > deadline) revert BundleExpired(deadline);
        if (settledBatches[msg.sender][batchId]) revert BatchAlreadySettled(batchId);
        settledBatches[msg.sender][batchId] = true;

        for (uint256 i = 0; i < trades.length; ++i) {
            _open(batchId, trades[i]);
        }
        for (uint256 i = 0; i < funding.length; ++i) {
            // Through the holder, so that solvers have no allowance that another solver's interaction could reach.
            holder.pull(funding[i].token, msg.sender, address(this), funding[i].amount);
        }
        for (uint256 i = 0; i < interactions.length; ++i) {
            _interact(interactions[i]);
        }
        for (uint256 i = 0; i < trades.length; ++i) {
            _payOut(trades[i]);
        }
        for (uint256 i = 0; i < crossFills.length; ++i) {
            _fillFromHere(crossFills[i]);
        }
        for (uint256 i = 0; i < sweep.length; ++i) {
            uint256 rest = IERC20(sweep[i]).balanceOf(address(this));
            if (rest > 0) IERC20(sweep[i]).safeTransfer(feeRecipient, rest);
        }
        emit Settled(batchId, msg.sender);
    }

    /// @notice EIP-712 digest that the owner of `swap` signs.
    function digestOf(Swap calldata swap) public view returns (bytes32) {
        return _hashTypedDataV4(swap.structHash());
    }

    /// @notice EIP-712 domain separator of this settlement.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @dev Dust in the escrow would look like a lock's tokens, and in the holder or here it would be anybody's.
    function _setFeeRecipient(address feeRecipient_) private {
        if (
            feeRecipient_ == address(0) || feeRecipient_ == address(this) || feeRecipient_ == address(holder)
                || feeRecipient_ == address(escrow)
        ) revert InvalidFeeRecipient(feeRecipient_);
        feeRecipient = feeRecipient_;
        emit FeeRecipientSet(feeRecipient_);
    }

    /// @dev Checks a trade, counts it as filled, and only then pulls the sold tokens.
    function _open(bytes32 batchId, Trade calldata trade) private {
        Swap calldata swap = trade.swap;
        bytes32 digest = digestOf(swap);
        _checkFields(digest, swap);
        if (!SignatureChecker.isValidSignatureNowCalldata(swap.owner, digest, trade.signature)) {
            revert BadSignature(digest);
        }
        if (cancelled[swap.owner][digest]) revert OrderCancelled(digest);
        uint256 before = filled[digest];
        if (before != trade.filledBefore) revert FilledElsewhere(digest, before);
        filled[digest] = _checkFill(digest, trade, before);
        emit Filled(digest, swap.owner, batchId, trade.sellFill, trade.buyFill, trade.fee);
        if (swap.buyChain == block.chainid) {
            _pull(digest, swap, address(this), trade.sellFill);
        } else {
            _pull(digest, swap, address(escrow), trade.sellFill);
            _lock(digest, trade, keccak256(abi.encode(digest, before)));
        }
    }

    function _checkFields(bytes32 digest, Swap calldata swap) private view {
        if (swap.sellChain != block.chainid) revert WrongChain(digest, swap.sellChain);
        if (swap.account != 0 || swap.minHealth != 0 || swap.extension != 0) revert Unsupported(digest);
        bool cross = swap.buyChain != block.chainid;
        if (
            swap.owner == address(0) || swap.receiver == address(0) || swap.receiver == address(this)
                || swap.receiver == address(holder) || swap.receiver == address(escrow)
                || uint256(swap.sellAsset) >> 160 != 0 || uint256(swap.buyAsset) >> 160 != 0
                || (!cross && swap.sellAsset == swap.buyAsset)
        ) revert InvalidAddress(digest);
        if (block.timestamp < swap.validFrom || block.timestamp > swap.validUntil) revert OutsideValidity(digest);
        if (cross) {
            if (
                block.timestamp > swap.fillDeadline
                    || uint256(swap.fillDeadline) + MIN_CLAIM_WINDOW > swap.refundAfter
            ) revert BadTimes(digest);
        } else if (swap.fillDeadline != 0 || swap.refundAfter != 0) {
            revert BadTimes(digest);
        }
    }

    /// @dev The new filled amount of the order, after its limits were checked against this fill.
    function _checkFill(bytes32 digest, Trade calldata trade, uint256 before) private pure returns (uint256 afterwards) {
        Swap calldata swap = trade.swap;
        bool exactIn = swap.kind == SwapLib.EXACT_IN;
        uint256 fill = exactIn ? trade.sellFill : trade.buyFill;
        uint256 whole = swap.total();
        if (fill == 0 || trade.sellFill == 0 || trade.buyFill == 0) revert NothingFilled(digest);
        if (fill > whole || before > whole - fill) revert Overfilled(digest);
        if (!swap.partialFill && fill != whole) revert PartialFillForbidden(digest);
        if (exactIn ? trade.buyFill < swap.minimumBuy(fill) : trade.sellFill > swap.maximumSell(fill)) {
            revert LimitViolated(digest);
        }
        if (trade.fee > swap.feeCap(fill)) revert FeeAboveCap(digest);
        return before + fill;
    }

    function _pull(bytes32 digest, Swap calldata swap, address to, uint256 amount) private {
        IERC20 token = IERC20(address(uint160(uint256(swap.sellAsset))));
        uint256 before = token.balanceOf(to);
        holder.pull(token, swap.owner, to, amount);
        uint256 received = token.balanceOf(to) - before;
        if (received < amount) revert SoldTokenShort(digest, received);
    }

    function _lock(bytes32 digest, Trade calldata trade, bytes32 orderId) private {
        Swap calldata swap = trade.swap;
        escrow.lock(
            orderId,
            Escrow.Lock({
                digest: digest,
                fillHash: _fillHash(
                    orderId, swap.buyChain, swap.buyAsset, swap.receiver, trade.buyFill, swap.fillDeadline
                ),
                fillChain: swap.buyChain,
                amount: trade.sellFill,
                owner: swap.owner,
                solver: msg.sender,
                token: address(uint160(uint256(swap.sellAsset))),
                refundAfter: swap.refundAfter,
                state: Escrow.State.Locked
            })
        );
    }

    /// @dev Approvals are exact and end with the call. The three forbidden targets are those on which a call by this
    /// contract has rights of its own.
    function _interact(Interaction calldata call) private {
        if (call.target == address(this) || call.target == address(holder) || call.target == address(escrow)) {
            revert ForbiddenTarget(call.target);
        }
        bytes4 selector = bytes4(call.data);
        if (_isApproval(selector)) revert ForbiddenCall(selector);
        bool approves = address(call.approveToken) != address(0);
        if (approves) call.approveToken.forceApprove(call.target, call.approveAmount);
        Address.functionCall(call.target, call.data);
        if (approves) call.approveToken.forceApprove(call.target, 0);
    }

    /// @dev The known ways in which a token is told of an allowance. A token may have one of its own that is not here:
    /// such an allowance could take only what lies here during a later settlement, which then reverts as short.
    function _isApproval(bytes4 selector) private pure returns (bool) {
        return selector == IERC20.approve.selector // ERC-20
            || selector == bytes4(keccak256("increaseAllowance(address,uint256)")) // OpenZeppelin 4
            || selector == bytes4(keccak256("increaseApproval(address,uint256)")) // OpenZeppelin 1
            || selector == bytes4(keccak256("approveAndCall(address,uint256)")) // ERC-1363
            || selector == bytes4(keccak256("approveAndCall(address,uint256,bytes)")) // ERC-1363 and before
            || selector == bytes4(keccak256("authorizeOperator(address)")) // ERC-777
            || selector == bytes4(keccak256("setOperator(address,bool)")) // ERC-6909
            || selector == bytes4(keccak256("setApprovalForAll(address,bool)")); // ERC-721, ERC-1155
    }

    function _payOut(Trade calldata trade) private {
        Swap calldata swap = trade.swap;
        if (swap.buyChain != block.chainid) return;
        IERC20 token = IERC20(address(uint160(uint256(swap.buyAsset))));
        uint256 received = _transferMeasured(token, swap.receiver, trade.buyFill);
        if (received < trade.buyFill) revert BoughtTokenShort(digestOf(swap), received);
    }

    function _fillFromHere(CrossFill calldata fill) private {
        if (block.timestamp > fill.fillDeadline) revert FillTooLate(fill.orderId);
        bytes32 hash = _fillHash(
            fill.orderId,
            block.chainid,
            bytes32(uint256(uint160(address(fill.token)))),
            fill.receiver,
            fill.amount,
            fill.fillDeadline
        );
        if (fills[hash]) revert AlreadyFilled(fill.orderId);
        fills[hash] = true;
        emit CrossFilled(fill.orderId, hash, fill.receiver, address(fill.token), fill.amount);
        uint256 received = _transferMeasured(fill.token, fill.receiver, fill.amount);
        if (received < fill.amount) revert BoughtTokenShort(fill.orderId, received);
    }

    function _transferMeasured(IERC20 token, address to, uint256 amount) private returns (uint256) {
        uint256 before = token.balanceOf(to);
        token.safeTransfer(to, amount);
        return token.balanceOf(to) - before;
    }

    function _fillHash(
        bytes32 orderId,
        uint256 chain,
        bytes32 asset,
        address receiver,
        uint256 amount,
        uint64 fillDeadline
    ) private pure returns (bytes32) {
        return keccak256(abi.encode(orderId, chain, asset, receiver, amount, fillDeadline));
    }
}
